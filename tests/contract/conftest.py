"""Every store the service can run on: a contract test is run once on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chalicelib.aws.keys import DynamoDBKeyStore
from chalicelib.aws.store import DynamoDBTimerStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.keys import SQLiteKeyStore
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.ports import KeyStore, TimerStore
from tests.clock import HandClock
from tests.dynamodb import dynamodb_on_moto, empty_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[DynamoDBClient]:
    with dynamodb_on_moto() as client:
        yield client


@pytest.fixture(params=["sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest) -> Iterator[TimerStore]:
    """Return an empty store."""
    if request.param == "sqlite":
        in_memory = SQLiteTimerStore.in_memory()
        yield in_memory
        in_memory.close()
    else:
        client = request.getfixturevalue("dynamodb")
        with empty_table(client) as table:
            yield DynamoDBTimerStore(client, table, HandClock())


@pytest.fixture(params=["sqlite", "dynamodb"])
def key_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyStore]:
    """Return an empty store of keys."""
    if request.param == "sqlite":
        yield SQLiteKeyStore(DataFolder(tmp_path / "data"))
    else:
        client = request.getfixturevalue("dynamodb")
        with empty_table(client) as table:
            yield DynamoDBKeyStore(client, table)
