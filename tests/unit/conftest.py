"""Use cases on rows and wake-ups that remember what they were asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.service.timers import Timers
from tests.support.clock import HandClock
from tests.support.recording import RecordingRows, RecordingWakeups


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def rows(clock: HandClock) -> Iterator[RecordingRows]:
    rows = RecordingRows(clock)
    yield rows
    rows.close()


@pytest.fixture
def wakeups(rows: RecordingRows) -> RecordingWakeups:
    return RecordingWakeups(rows.log)


@pytest.fixture
def store(rows: RecordingRows, wakeups: RecordingWakeups, clock: HandClock) -> WakingTimerStore:
    return WakingTimerStore(rows, wakeups, clock)


@pytest.fixture
def timers(store: WakingTimerStore, clock: HandClock) -> Timers:
    return Timers(store, clock)
