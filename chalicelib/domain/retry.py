"""The retry decision: whether and when a timer is tried again after an attempt.

The default delays are those of Standard Webhooks 1.0. Jitter spreads the retries after an outage,
which would otherwise all come in the same second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.attempt_log import GONE, SUCCESS
from chalicelib.domain.moment import MAX_DELAY_S
from chalicelib.domain.response import parse_retry_after
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome

DEFAULT_DELAYS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the second, third, … attempt. There is one attempt more than delays."""

JITTER = 0.1
"""The largest fraction of itself by which a delay is lengthened."""

MAX_RETRY_AFTER_S = 86_400
"""The longest delay, in seconds, that a receiver may ask for with Retry-After (RFC 9110)."""


MAX_RETRY_DELAY_S = 86_400
"""The longest delay, in seconds, that a timer's own schedule may have."""

MIN_AGAIN_S = 1
"""The shortest time, in seconds, after which a receiver may ask to be called again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The state of a timer after an attempt. ``next_attempt_at`` (epoch ms) is set if pending.

    ``repeat`` tells that the receiver asked to be called again: the next attempt is a first one.
    """

    status: Status
    next_attempt_at: int | None = None
    repeat: bool = False


def succeeded(outcome: Outcome) -> bool:
    """Return whether the receiver accepted the webhook, which means that it responded 2xx."""
    return outcome.status in SUCCESS


def attempts_allowed(delays: Sequence[float], requested: int | None = None) -> int:
    """Return how many attempts a timer gets. ``requested`` is its option ``max_attempts``."""
    limit = len(delays) + 1
    return limit if requested is None else min(requested, limit)


def delays_of(timer: Timer, service: Sequence[float]) -> Sequence[float]:
    """Return the delays before the retries of ``timer``, in seconds: its own or the service's."""
    own = timer.options.retry_delays_ms
    return service if own is None else [delay / 1000 for delay in own]


def decide(
    timer: Timer, outcome: Outcome, *, now: int, delays: Sequence[float], random: float
) -> Decision:
    """Decide on the next attempt at ``timer``, whose last one ended at ``now`` (epoch ms, UTC).

    The receiver of a repeatable timer may ask for another call with ``timer-again``: a number of
    seconds or a date (RFC 9110, 5.6.7), from a second to ten years ahead. Anything else in it is
    ignored. Every failure is tried again after the next of ``delays`` (seconds) or of the timer's
    own, except for the status 410 (Gone). ``Retry-After`` can only lengthen a delay. ``random`` is
    in [0, 1).
    """
    if succeeded(outcome):
        again_at = _again_at(timer, outcome, now)
        if again_at is None:
            return Decision(status=Status.FIRED)
        return Decision(status=Status.PENDING, next_attempt_at=again_at, repeat=True)
    delays = delays_of(timer, delays)
    # ``timer.attempts`` does not count the attempt that has just ended.
    is_last = timer.attempts + 1 >= attempts_allowed(delays, timer.options.max_attempts)
    if is_last or outcome.status == GONE:
        return Decision(status=Status.FAILED)
    # Jitter only lengthens: a receiver that is down does not get less time than the delay says.
    delay_s = delays[timer.attempts] * (1 + JITTER * random)
    if outcome.retry_after is not None:
        delay_s = max(delay_s, min(outcome.retry_after, MAX_RETRY_AFTER_S))
    return Decision(status=Status.PENDING, next_attempt_at=now + int(delay_s * 1000))


def _again_at(timer: Timer, outcome: Outcome, now: int) -> int | None:
    """Return when the receiver wants to be called again (epoch ms), None if it does not."""
    if not timer.options.repeatable or outcome.again is None:
        return None
    seconds = parse_retry_after(outcome.again, now / 1000)
    if seconds is None or not MIN_AGAIN_S <= seconds <= MAX_DELAY_S:
        return None
    return now + math.ceil(seconds * 1000)
