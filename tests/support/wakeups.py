"""Wake-ups that are only remembered, for tests that need no queue."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Wakeup


class RecordingWakeups:
    """Remembers every wake-up. While ``broken``, none can be registered.

    The order of calls goes to ``log``, which a ``RecordingStore`` may share.
    """

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

    def is_near(self, _wakeup: Wakeup) -> bool:
        return True

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        for wakeup in wakeups:
            self.wake_at(wakeup)
        return wakeups

    def forget(self, wakeup: Wakeup) -> None:
        self.forgotten.append(wakeup)
