"""The test clock: the wall clock, moved ahead by a client. It stands still while it is moved.

Its state lies in the store, so every process reads the same time, and a restart keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.service.ports import Clock


@dataclass(frozen=True, slots=True)
class ClockState:
    """The clock is ``ahead_ms`` ahead of the wall clock, or stands still at ``stopped_at``.

    ``stopped_at`` is in epoch ms. It is None while the clock runs.
    """

    ahead_ms: float = 0.0
    stopped_at: float | None = None

    @property
    def moved(self) -> bool:
        """Whether the clock is not simply the wall clock."""
        return self != NOT_MOVED

    def now(self, wall_now: float) -> float:
        """Return the time of this clock (epoch ms) when the wall clock shows ``wall_now``."""
        return wall_now + self.ahead_ms if self.stopped_at is None else self.stopped_at

    def stopped(self, at: float) -> ClockState:
        """Return the state of a clock that stands still at ``at`` (epoch ms)."""
        return ClockState(self.ahead_ms, at)

    def running(self, wall_now: float) -> ClockState:
        """Return the state of a clock that runs on, from the same time, at ``wall_now``."""
        return ClockState(self.now(wall_now) - wall_now)


NOT_MOVED = ClockState()


class DispatcherClock:
    """The clock of the dispatcher, which alone moves it. ``state`` is what the store has."""

    def __init__(self, wall_clock: Clock, state: ClockState) -> None:
        self.wall_clock = wall_clock
        self.state = state

    def __call__(self) -> float:
        """Return epoch milliseconds, UTC."""
        return self.state.now(self.wall_clock())

    def ahead_ms(self) -> float:
        """Return how far this clock is ahead of the wall clock now."""
        wall_now = self.wall_clock()
        return self.state.now(wall_now) - wall_now
