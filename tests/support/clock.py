"""The clock of the tests: time passes only when a test says so."""

from __future__ import annotations

START = 1_800_000_000_000
"""The time at which a test begins, in epoch milliseconds."""


class ManualClock:
    """A wall clock in epoch milliseconds that only a test moves. ``reads`` counts its readings."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now

    def advance(self, milliseconds: float) -> None:
        self.now += milliseconds
