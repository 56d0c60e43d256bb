"""Invariants about the rows of timers: ids, claims, settlements, and the due index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.domain.claim import Claim, ClaimResult, Settlement, Superseded
from chalicelib.domain.retry import succeeded
from chalicelib.domain.timer import Status, Timer
from tests.simulation.invariants.violation import InvariantViolation
from tests.simulation.promises import Lease, Promise


def id_is_used_once(promise: Promise, first: Promise) -> None:
    """No two timers of a tenant ever have the same id.

    ``first`` is the first timer that had the id of ``promise``.
    """
    if first is not promise:
        raise InvariantViolation(id_is_used_once, promise, first)


def row_is_in_the_due_index_while_outstanding(item: Mapping[str, Any]) -> None:
    """A row of DynamoDB has a next attempt and is in the due index exactly while it is pending.

    Invariant 2 of docs/design.md.
    """
    pending = item["status"] == {"S": "pending"}
    if not pending == ("due_shard" in item) == ("next_attempt_at" in item):
        raise InvariantViolation(row_is_in_the_due_index_while_outstanding, item)


def stale_wakeup_claims_nothing(claim: Claim, timer: Timer) -> None:
    """A claim is granted only to a wake-up of the version that is stored.

    Invariant 5 of docs/design.md.
    """
    if timer.version != claim.wakeup.version:
        raise InvariantViolation(stale_wakeup_claims_nothing, claim, timer)


def only_stale_wakeups_are_dropped(claim: Claim, result: ClaimResult, row: Timer | None) -> None:
    """A wake-up is dropped exactly if its timer is gone, settled or of another version.

    Invariants 5 and 7 of docs/design.md.
    """
    outstanding = row is not None and row.next_attempt_at is not None
    current = row is not None and row.version == claim.wakeup.version
    dropped = isinstance(result, Superseded)
    if dropped == (outstanding and current):
        raise InvariantViolation(only_stale_wakeups_are_dropped, claim, result, row)


def stale_sender_settles_nothing(promise: Promise, lease: Lease, settlement: Settlement) -> None:
    """A sender settles only while its claim is the latest one and the outcome is still open.

    Invariant 3 of docs/design.md.
    """
    if lease is not promise.leases[-1] or promise.concluded:
        raise InvariantViolation(stale_sender_settles_nothing, settlement)


def settlement_matches_the_outcome(settlement: Settlement, lease: Lease) -> None:
    """A timer fires, or is called again, exactly if its sender saw its webhook accepted."""
    if lease.sent is None or lease.sent.outcome is None:
        return
    fired = settlement.status is Status.FIRED or settlement.repeat
    if succeeded(lease.sent.outcome) != fired:
        raise InvariantViolation(settlement_matches_the_outcome, settlement, lease.sent.outcome)


def claimed_timer_is_not_changed(promise: Promise, now: float) -> None:
    """Nobody cancels, moves or replays a timer while a sender holds its lease.

    Invariant 3 of docs/design.md.
    """
    latest = promise.leases[-1] if promise.leases else None
    if latest is not None and not latest.settled and now < latest.until:
        raise InvariantViolation(claimed_timer_is_not_changed, promise, latest)


def only_timers_to_be_removed_are_cancelled(promise: Promise) -> None:
    """A timer is cancelled only if a client has asked for that, by its id or by its label."""
    if not promise.removals:
        raise InvariantViolation(only_timers_to_be_removed_are_cancelled, promise)


def expired_timer_was_too_late(promise: Promise, settlement: Settlement) -> None:
    """A timer expires only if its first call could not start within its `max_lateness`."""
    allowed = promise.request.options.max_lateness_ms
    # The settlement has the time rounded down.
    if allowed is None or settlement.now < promise.not_before + allowed:
        raise InvariantViolation(expired_timer_was_too_late, promise, settlement)
