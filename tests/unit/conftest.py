"""Use cases on a store and a waker that remember what they were asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.service.timers import Timers
from tests.support.clock import HandClock
from tests.support.recording import RecordingStore, RecordingWaker


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(clock: HandClock) -> Iterator[RecordingStore]:
    store = RecordingStore.recording(clock)
    yield store
    store.close()


@pytest.fixture
def waker(store: RecordingStore) -> RecordingWaker:
    return RecordingWaker(store.log)


@pytest.fixture
def scheduling(store: RecordingStore, waker: RecordingWaker, clock: HandClock) -> Timers:
    return Timers(store, waker, clock)
