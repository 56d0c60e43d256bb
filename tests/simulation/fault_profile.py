"""The fault profile of a run: which faults are injected, and how often. The seed draws it.

In each profile many faults are absent and some are frequent. If every fault were always present,
the effects of one would hide the effects of another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

FAULT_FREE_SHARE = 0.1
"""The share of runs without any fault: in these, each attempt must be made once and on time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultProfile:
    """The probability of each fault: per call, per webhook, per wake-up, or per minute."""

    fault_free: bool = False

    # Per call to the store, the queue, the scheduler or the dispatcher's socket.
    refused: float = 0.0
    """The call fails and was not carried out."""
    response_lost: float = 0.0
    """The call is carried out and its response is lost."""
    applied_late: float = 0.0
    """The call fails, and is carried out up to half a minute after that."""
    repeated: float = 0.0
    """The client library repeats a call whose response was lost; only the second one is seen."""
    slow: float = 0.0
    """The call takes seconds."""
    stalled: float = 0.0
    """The call, or the process that makes it, takes longer than a lease may last."""
    killed: float = 0.0
    """The process is killed before or after the call."""

    # Per webhook.
    no_connection: float = 0.0
    server_error: float = 0.0
    no_response: float = 0.0
    """The receiver gets the webhook, and its response never arrives."""

    # Per wake-up.
    wakeup_lost: float = 0.0
    wakeup_duplicated: float = 0.0
    wakeup_early: float = 0.0
    wakeup_late: float = 0.0

    function_timeout: bool = True
    """A function that takes too long is killed: Lambda does that, an offline poller does not."""
    visibility_s: int = 150
    near_s: int = 900
    skew_ms: float = 0.0
    """The largest difference between the clocks of two processes."""

    # Per minute, embedded engine only.
    disk_full: float = 0.0
    """The disk is full for a while."""
    clock_set: float = 0.0
    """The wall clock is set forwards or back. A machine that sleeps looks the same."""
    commit_ms: float = 0.0
    """The longest time the disk takes for a commit."""

    @property
    def clocks_differ(self) -> bool:
        """Return whether a later reading of a clock may show an earlier time."""
        return self.skew_ms > 0 or self.clock_set > 0


def draw_for_aws(rng: random.Random) -> FaultProfile:
    """Return the profile of one run of the AWS engine."""

    def some(*probabilities: float) -> float:
        return rng.choice((0.0, 0.0, *probabilities))

    visibility_s = rng.choice((30, 150))
    near_s = rng.choice((60, 900))
    if rng.random() < FAULT_FREE_SHARE:
        return FaultProfile(fault_free=True, visibility_s=visibility_s, near_s=near_s)
    return FaultProfile(
        refused=some(0.01, 0.05, 0.2),
        response_lost=some(0.01, 0.05, 0.2),
        applied_late=some(0.01, 0.05),
        repeated=some(0.02, 0.1),
        slow=some(0.02, 0.1),
        stalled=some(0.02, 0.1),
        killed=some(0.005, 0.02, 0.05),
        no_connection=some(0.1, 0.3),
        server_error=some(0.1, 0.3),
        no_response=some(0.1, 0.3),
        wakeup_lost=some(0.05, 0.3),
        wakeup_duplicated=some(0.1, 0.5),
        wakeup_early=some(0.1, 0.5),
        wakeup_late=some(0.1),
        function_timeout=rng.random() < 0.3,
        visibility_s=visibility_s,
        near_s=near_s,
        skew_ms=some(5.0, 400.0),
    )


def draw_for_embedded(rng: random.Random) -> FaultProfile:
    """Return the profile of one run of the embedded engine."""

    def some(*probabilities: float) -> float:
        return rng.choice((0.0, 0.0, *probabilities))

    commit_ms = rng.choice((0.2, 5.0, 300.0))
    if rng.random() < FAULT_FREE_SHARE:
        return FaultProfile(fault_free=True, commit_ms=commit_ms)
    return FaultProfile(
        refused=some(0.02, 0.2),
        response_lost=some(0.02, 0.2),
        slow=some(0.02, 0.2),
        killed=some(0.005, 0.02),
        no_connection=some(0.1, 0.3),
        server_error=some(0.1, 0.3),
        no_response=some(0.1, 0.3),
        disk_full=some(0.5, 2.0),
        clock_set=some(0.5, 2.0),
        commit_ms=commit_ms,
    )
