"""The retry decision: whether and when a timer is tried again after an attempt.

The default delays are those of Standard Webhooks 1.0. Jitter spreads the retries after an outage,
which would otherwise all come in the same second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.attempt_log import GONE, SUCCESS
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome

DEFAULT_DELAYS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the second, third, … attempt. There is one attempt more than delays."""

JITTER = 0.1
"""The largest fraction of itself by which a delay is lengthened."""

MAX_RETRY_AFTER_S = 86_400
"""The longest delay, in seconds, that a receiver may ask for with Retry-After (RFC 9110)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The state of a timer after an attempt. ``next_attempt_at`` (epoch ms) is set if pending."""

    status: Status
    next_attempt_at: int | None = None


def succeeded(outcome: Outcome) -> bool:
    """Return whether the receiver accepted the webhook, which means that it responded 2xx."""
    return outcome.status in SUCCESS


def attempts_allowed(delays: Sequence[float], requested: int | None = None) -> int:
    """Return how many attempts a timer gets. ``requested`` is its option ``max_attempts``."""
    limit = len(delays) + 1
    return limit if requested is None else min(requested, limit)


def decide(
    timer: Timer, outcome: Outcome, *, now: int, delays: Sequence[float], random: float
) -> Decision:
    """Decide on the next attempt at ``timer``, whose last one ended at ``now`` (epoch ms, UTC).

    Every failure is tried again after the next of ``delays`` (seconds), except for the status
    410 (Gone). ``Retry-After`` can only lengthen a delay. ``random`` is in [0, 1).
    """
    if succeeded(outcome):
        return Decision(status=Status.FIRED)
    # ``timer.attempts`` does not count the attempt that has just ended.
    is_last = timer.attempts + 1 >= attempts_allowed(delays, timer.options.max_attempts)
    if is_last or outcome.status == GONE:
        return Decision(status=Status.FAILED)
    # Jitter only lengthens: a receiver that is down does not get less time than the delay says.
    delay_s = delays[timer.attempts] * (1 + JITTER * random)
    if outcome.retry_after is not None:
        delay_s = max(delay_s, min(outcome.retry_after, MAX_RETRY_AFTER_S))
    return Decision(status=Status.PENDING, next_attempt_at=now + int(delay_s * 1000))
