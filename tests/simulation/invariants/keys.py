"""Invariants about keyed timers and idempotent requests."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.timer import Timer
from tests.simulation.invariants.violation import InvariantViolation
from tests.simulation.promises import Promise


def idempotency_key_has_one_timer(promise: Promise, timer: Timer) -> None:
    """A request with an idempotency key sets one timer, however often it is repeated.

    ``timer`` is a second one for the request of ``promise``, whose first one was not removed.
    """
    raise InvariantViolation(idempotency_key_has_one_timer, promise, timer)


def key_has_one_outstanding_timer(timer: Timer, rows: Sequence[Timer]) -> None:
    """A key has at most one outstanding timer."""
    same = [
        row.id
        for row in rows
        if (row.tenant, row.key) == (timer.tenant, timer.key) and row.next_attempt_at is not None
    ]
    if len(same) > 1:
        raise InvariantViolation(key_has_one_outstanding_timer, timer, same)


def bound_is_not_passed(promise: Promise, due_at: int) -> None:
    """A keyed timer with a bound is never due after it."""
    if promise.bound is not None and due_at > promise.bound:
        raise InvariantViolation(bound_is_not_passed, promise, due_at - promise.bound, "ms")


def bound_is_only_tightened(promise: Promise, after: Timer) -> None:
    """The bound of a keyed timer that is stored is kept, or tightened."""
    before, now = promise.bound, after.no_later_than
    if before is not None and (now is None or now > before):
        raise InvariantViolation(bound_is_only_tightened, promise, before, now)
