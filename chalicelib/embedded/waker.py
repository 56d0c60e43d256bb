"""The waker of the embedded engine, which has nothing to do."""

from __future__ import annotations

from chalicelib.domain.timer import Wakeup


class ImpliedWaker:
    """Wakes by the write alone: the dispatcher carries out every write, and so knows."""

    def wake_at(self, wakeup: Wakeup) -> None:
        """Do nothing: the dispatcher sleeps until the earliest row."""

    def forget(self, wakeup: Wakeup) -> None:
        """Do nothing: a row that is gone wakes nobody."""
