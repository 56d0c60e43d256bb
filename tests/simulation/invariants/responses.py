"""Invariants about responses: what the API tells its clients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.timer import Timer
from tests.simulation.invariants.violation import InvariantViolation
from tests.simulation.promises import Promise


def response_names_the_stored_timer(promise: Promise, timer: Timer) -> None:
    """The response to a create has the id and the due time of a row that is stored.

    Invariant 1 of docs/design.md.
    """
    if (timer.id, timer.due_at) != (promise.id, promise.dues[0][1]):
        raise InvariantViolation(response_names_the_stored_timer, promise, timer)


def acknowledged_timer_exists(promise: Promise, timer: Timer | None) -> None:
    """An acknowledged timer that nobody tried to remove is there for every reader.

    Invariant 1 of docs/design.md.
    """
    if timer is None and promise.must_exist:
        raise InvariantViolation(acknowledged_timer_exists, promise)


def removed_timer_is_gone(promise: Promise, since: float) -> None:
    """A timer is not seen by a request that began after its removal was acknowledged."""
    removal = promise.removed(since)
    if removal is not None:
        raise InvariantViolation(removed_timer_is_gone, promise, removal)


def moved_timer_is_due_as_requested(
    promise: Promise, timer: Timer, delay_ms: int, asked_at: float, now: float
) -> None:
    """A moved timer is due one requested delay after a time between request and response."""
    if not asked_at <= timer.due_at - delay_ms <= math.ceil(now):
        raise InvariantViolation(moved_timer_is_due_as_requested, promise, timer, delay_ms)


def list_is_newest_first_without_duplicates(timers: Sequence[Timer]) -> None:
    """A list is ordered by falling id and contains no timer twice."""
    ids = [timer.id for timer in timers]
    if ids != sorted(set(ids), reverse=True):
        raise InvariantViolation(list_is_newest_first_without_duplicates, ids)


def tenants_see_only_their_own_timers(promise: Promise, timer: Timer | None) -> None:
    """A list contains no timer of another tenant.

    ``timer`` is a listed timer of another tenant, None if there is none.
    """
    if timer is not None:
        raise InvariantViolation(tenants_see_only_their_own_timers, promise)


def only_requested_timers_are_listed(unknown: Mapping[str, Timer]) -> None:
    """A list contains only timers that a client has requested."""
    if unknown:
        raise InvariantViolation(only_requested_timers_are_listed, unknown)


def time_left_is_right(promise: Promise, time_left_s: int, now: float, since: float) -> None:
    """The time left is the due time less now, in whole seconds rounded up, and 0 once expired.

    Any due time that was valid between ``since``, when the reader asked, and ``now`` is right.
    """
    before = [due_at for at, due_at in promise.dues if at <= since]
    meanwhile = [due_at for at, due_at in promise.dues if at > since]
    right = [_seconds_left(due_at, now) for due_at in (*before[-1:], *meanwhile)]
    # The sender's clock may be ahead of the reader's: then the timer has expired already.
    has_expired = bool(promise.leases) or promise.seen_expired
    if time_left_s not in right and not (time_left_s == 0 and has_expired):
        raise InvariantViolation(time_left_is_right, promise, f"told {time_left_s}, is {right}")


def _seconds_left(due_at: int, now: float) -> int:
    return max(1, -(-(due_at - math.ceil(now)) // 1000)) if now < due_at else 0


def expired_timer_stays_expired(promise: Promise, time_left_s: int) -> None:
    """After a reader saw 0 seconds left, no reader sees more, unless the timer is moved."""
    if promise.seen_expired and time_left_s:
        raise InvariantViolation(expired_timer_stays_expired, promise, time_left_s)


def repeated_request_gets_the_same_timer(promise: Promise, done: SetOnce) -> None:
    """The response to an idempotent request names its timer, however often it is repeated."""
    if done.timer_id != promise.id:
        raise InvariantViolation(repeated_request_gets_the_same_timer, promise, done)
