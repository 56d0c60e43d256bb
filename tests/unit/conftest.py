"""Use cases on a store and wake-ups that remember their calls, and an empty DynamoDB table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.service.timers import Timers
from tests.support.clock import ManualClock
from tests.support.dynamodb import RecordingClient, empty_table
from tests.support.stores import RecordingStore
from tests.support.wakeups import RecordingWakeups

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(dynamodb: DynamoDBClient) -> Iterator[RecordingClient]:
    with empty_table(dynamodb):
        yield RecordingClient(dynamodb)


@pytest.fixture
def rows(clock: ManualClock) -> Iterator[RecordingStore]:
    rows = RecordingStore(clock)
    yield rows
    rows.close()


@pytest.fixture
def wakeups(rows: RecordingStore) -> RecordingWakeups:
    return RecordingWakeups(rows.log)


@pytest.fixture
def store(rows: RecordingStore, wakeups: RecordingWakeups, clock: ManualClock) -> WakingTimerStore:
    return WakingTimerStore(rows, wakeups, clock)


@pytest.fixture
def timers(store: WakingTimerStore, clock: ManualClock) -> Timers:
    return Timers(store, clock)
