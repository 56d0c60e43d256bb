"""Rows and wake-ups that remember what they were asked for, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chalicelib.domain.claim import Reschedule
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Timer, Wakeup
from tests.support.armable import ArmableSQLite
from tests.support.clock import HandClock


class Written(NamedTuple):
    """A row as it was written."""

    timer: Timer
    armed: bool


class RecordingRows(ArmableSQLite):
    """Rows that remember how each timer was written, in a log shared with the wake-ups."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.clock = clock
        self.log: list[str] = []
        self.written: list[Written] = []
        self.before_change: Callable[[], object] | None = None
        self.writing_takes_ms = 0.0

    def put(self, timer: Timer, *, armed: bool) -> None:
        super().put(timer, armed=armed)
        self._wrote(timer, armed=armed)

    def reschedule(self, change: Reschedule, *, armed: bool) -> Timer:
        if self.before_change:
            self.before_change()
        timer = super().reschedule(change, armed=armed)
        self._wrote(timer, armed=armed)
        return timer

    def _wrote(self, timer: Timer, *, armed: bool) -> None:
        self.clock.advance(self.writing_takes_ms)
        self.log.append("put")
        self.written.append(Written(timer, armed))


class RecordingWakeups:
    """Wake-ups that are only remembered. While ``broken``, none can be registered."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.log = [] if log is None else log
        self.registered: list[Wakeup] = []
        self.forgotten: list[Wakeup] = []
        self.broken = False

    def wake_at(self, wakeup: Wakeup) -> None:
        self.log.append("wake")
        if self.broken:
            raise Unavailable("The queue is down.")
        self.registered.append(wakeup)

    def forget(self, wakeup: Wakeup) -> None:
        self.forgotten.append(wakeup)
