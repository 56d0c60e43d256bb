"""A clock that only tests move."""

from __future__ import annotations

START = 1_800_000_000_000
"""Where a test begins, in epoch milliseconds."""


class HandClock:
    """A wall clock, in epoch milliseconds; ``looks`` counts how often it was read."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now

    def advance(self, milliseconds: float) -> None:
        self.now += milliseconds
