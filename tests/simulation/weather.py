"""What goes wrong in one history, and how often: drawn from its seed.

Every history has a weather of its own, in which many faults are absent and some are frequent:
a fault that is everywhere hides what another one alone would show.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CALM = 0.1
"""The part of histories in which nothing goes wrong: then everything must be punctual, and once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How likely each fault is: per call to store, queue or scheduler, per webhook, per wake-up."""

    calm: bool = False

    refused: float = 0.0
    """The call fails and was not carried out."""
    unanswered: float = 0.0
    """The call is carried out and its answer is lost."""
    applied_late: float = 0.0
    """The call fails, and is carried out up to half a minute after that."""
    repeated: float = 0.0
    """The client repeats a call whose answer was lost, and hears of the second try only."""
    slow: float = 0.0
    """The call takes seconds."""
    stalled: float = 0.0
    """The call, or the process that makes it, takes longer than a lease may last."""
    killed: float = 0.0
    """The process dies before or after the call."""

    no_connection: float = 0.0
    server_error: float = 0.0
    no_answer: float = 0.0
    """The receiver took the webhook, and its answer never comes."""

    lost: float = 0.0
    doubled: float = 0.0
    early: float = 0.0
    late: float = 0.0

    cut_off: bool = True
    """A function that takes too long is killed, as Lambda does; an offline pump does not."""
    visibility_s: int = 150
    near_s: int = 900
    skew_ms: float = 0.0
    """How far the clocks of two processes may be apart, either way."""

    disk_full: float = 0.0
    """How often in a minute the disk is full for a while."""
    clock_set: float = 0.0
    """How often in a minute the wall clock is set, forwards or back; or the machine sleeps."""
    commit_ms: float = 0.0
    """How long the disk takes for a commit, at most."""

    @property
    def clocks_differ(self) -> bool:
        """Tell whether two looks at a clock may go backwards."""
        return self.skew_ms > 0 or self.clock_set > 0


def draw(chance: random.Random) -> Weather:
    """Return the weather of one history on the aws engine."""

    def some(*parts: float) -> float:
        return chance.choice((0.0, 0.0, *parts))

    visibility_s = chance.choice((30, 150))
    near_s = chance.choice((60, 900))
    if chance.random() < CALM:
        return Weather(calm=True, visibility_s=visibility_s, near_s=near_s)
    return Weather(
        refused=some(0.01, 0.05, 0.2),
        unanswered=some(0.01, 0.05, 0.2),
        applied_late=some(0.01, 0.05),
        repeated=some(0.02, 0.1),
        slow=some(0.02, 0.1),
        stalled=some(0.02, 0.1),
        killed=some(0.005, 0.02, 0.05),
        no_connection=some(0.1, 0.3),
        server_error=some(0.1, 0.3),
        no_answer=some(0.1, 0.3),
        lost=some(0.05, 0.3),
        doubled=some(0.1, 0.5),
        early=some(0.1, 0.5),
        late=some(0.1),
        cut_off=chance.random() < 0.3,
        visibility_s=visibility_s,
        near_s=near_s,
        skew_ms=some(5.0, 400.0),
    )


def draw_offline(chance: random.Random) -> Weather:
    """Return the weather of one history on the embedded engine."""

    def some(*parts: float) -> float:
        return chance.choice((0.0, 0.0, *parts))

    commit_ms = chance.choice((0.2, 5.0, 300.0))
    if chance.random() < CALM:
        return Weather(calm=True, commit_ms=commit_ms)
    return Weather(
        refused=some(0.02, 0.2),
        unanswered=some(0.02, 0.2),
        slow=some(0.02, 0.2),
        killed=some(0.005, 0.02),
        no_connection=some(0.1, 0.3),
        server_error=some(0.1, 0.3),
        no_answer=some(0.1, 0.3),
        disk_full=some(0.5, 2.0),
        clock_set=some(0.5, 2.0),
        commit_ms=commit_ms,
    )
