"""The retry decision: what follows from the outcome of an attempt.

The default delays are those of Standard Webhooks 1.0. Jitter spreads the retries after an outage,
which would otherwise all come in the same second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.attempt_log import GONE, SUCCESS
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome

DEFAULT_DELAYS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the second, third, … attempt; one attempt more than there are delays."""

JITTER = 0.1
"""A delay is lengthened by up to this fraction of itself."""

MAX_RETRY_AFTER_S = 86_400
"""A receiver may delay the next attempt with Retry-After (RFC 9110), by a day at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The state of a timer after an attempt. ``next_attempt_at`` (epoch ms) only while pending."""

    status: Status
    next_attempt_at: int | None = None


def succeeded(outcome: Outcome) -> bool:
    """Tell whether the receiver accepted the webhook: any 2xx does, and nothing else."""
    return outcome.status in SUCCESS


def attempts_allowed(delays: Sequence[float], requested: int | None = None) -> int:
    """Return how many attempts a timer gets that requested ``requested``."""
    limit = len(delays) + 1
    return limit if requested is None else min(requested, limit)


def decide(
    timer: Timer, outcome: Outcome, *, now: int, delays: Sequence[float], random: float
) -> Decision:
    """Return what follows from the outcome of an attempt at ``timer`` that ended at ``now``.

    A failure that may heal is tried again after the next of ``delays`` (seconds): no connection,
    a timeout, any status but 2xx and 410. ``Retry-After`` only lengthens a delay. ``random`` is in
    [0, 1).
    """
    if succeeded(outcome):
        return Decision(status=Status.FIRED)
    last = timer.attempts + 1 >= attempts_allowed(delays, timer.options.max_attempts)
    if last or outcome.status == GONE:
        return Decision(status=Status.FAILED)
    delay = delays[timer.attempts] * (1 + JITTER * random)
    if outcome.retry_after is not None:
        delay = max(delay, min(outcome.retry_after, MAX_RETRY_AFTER_S))
    return Decision(status=Status.PENDING, next_attempt_at=now + int(delay * 1000))
