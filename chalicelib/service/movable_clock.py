"""The port of the test clock: it can be moved ahead, and says what fired on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.timer import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """The time of the clock after it was moved (epoch ms), and the results of the calls.

    ``results`` has an id and a status for each timer of the tenant that fired or ended, in the
    order in which they were called. A timer whose receiver asked to be called again is there once
    for each time it fired.
    """

    now: int
    results: Sequence[tuple[int, Status]] = ()

    def ids(self, status: Status) -> list[int]:
        """Return the timers with this result, in the order in which they were called."""
        return [timer_id for timer_id, result in self.results if result is status]


class MovableClock(Protocol):
    """A clock that is moved ahead in place of waiting."""

    def __call__(self) -> float:
        """Return epoch milliseconds, UTC. Raises ``Unavailable``."""

    def advance(self, tenant: str, delay_ms: int | None) -> Advanced:
        """Move the clock ``delay_ms`` ahead; None means up to the last outstanding timer.

        Return after everything that is due on the way was called, in order. Raises ``ClockMoving``,
        ``AdvanceUnfinished`` and ``Unavailable``.
        """
