"""The next attempt at a timer, and the reason for its time, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.attempt_log import last_attempt
from chalicelib.domain.retry import attempts_allowed, delays_of
from chalicelib.domain.timer import Timer


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """When a timer is attempted next (epoch ms), and why then."""

    at: int
    because: str


def next_attempt(timer: Timer, delays: Sequence[float], now: float) -> NextAttempt | None:
    """Return the next attempt at ``timer``, None if it is settled.

    ``delays`` (seconds) are the service's before each retry. ``now`` is epoch ms.
    """
    if timer.next_attempt_at is None:
        return None
    if timer.lease is not None:
        state = "in flight" if now < timer.lease.until else "its sender was lost"
        return NextAttempt(timer.lease.until, f"{state}; without an outcome it is tried again then")
    allowed = attempts_allowed(delays_of(timer, delays), timer.options.max_attempts)
    number = f"attempt {timer.attempts + 1} of {allowed}"
    last = last_attempt(timer.log)
    if timer.attempts == 0 or last is None:
        if timer.repeats:
            return NextAttempt(timer.next_attempt_at, f"the receiver asked for it; {number}")
        why = "due then" if timer.next_attempt_at == timer.due_at else "replayed or fired by hand"
        return NextAttempt(timer.next_attempt_at, f"{why}; {number}")
    parts = [last.reason or f"HTTP {last.status}", number]
    if last.retry_after is not None:
        parts.append(f"Retry-After {last.retry_after} s")
    return NextAttempt(timer.next_attempt_at, "; ".join(parts))
