"""Fixtures for every folder: DynamoDB in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.dynamodb import dynamodb_on_moto

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[DynamoDBClient]:
    """Return a client of a DynamoDB without tables, one for each module."""
    with dynamodb_on_moto() as client:
        yield client
