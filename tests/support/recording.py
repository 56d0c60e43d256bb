"""A store and wakers that remember what they were asked for, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import NewTimer, Timer, Wakeup
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.ports import Arm, Reschedule
from tests.support.clock import HandClock


class RecordingStore(SQLiteTimerStore):
    """A store that remembers how each timer was written, in a log shared with the waker."""

    log: list[str]
    written: list[Timer]
    changes: list[Reschedule]
    before_change: Callable[[], object] | None = None
    writing_takes_ms = 0.0
    clock: HandClock

    @classmethod
    def recording(cls, clock: HandClock) -> RecordingStore:
        store = cls.in_memory()
        assert isinstance(store, RecordingStore)
        store.log, store.written, store.changes, store.clock = [], [], [], clock
        return store

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        timer = super().create(new, arm)
        self.clock.advance(self.writing_takes_ms)
        self.log.append("put")
        self.written.append(timer)
        return timer

    def reschedule(self, change: Reschedule) -> Timer:
        if self.before_change:
            self.before_change()
        timer = super().reschedule(change)
        self.clock.advance(self.writing_takes_ms)
        self.log.append("put")
        self.changes.append(change)
        return timer


class RecordingWaker:
    """A waker that remembers what it was asked for."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.registered: list[Wakeup] = []
        self.forgotten: list[Wakeup] = []

    def wake_at(self, wakeup: Wakeup) -> None:
        self.log.append("wake")
        self.registered.append(wakeup)

    def forget(self, wakeup: Wakeup) -> None:
        self.forgotten.append(wakeup)


class FailingWaker(RecordingWaker):
    """A waker that cannot register anything."""

    def wake_at(self, wakeup: Wakeup) -> None:
        super().wake_at(wakeup)
        raise Unavailable("The queue is down.")
