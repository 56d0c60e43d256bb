"""Invariants about webhooks: when a call to a receiver may start."""

from __future__ import annotations

from chalicelib.domain.retry import succeeded
from tests.simulation.invariants.violation import InvariantViolation
from tests.simulation.promises import Lease, Promise, SentWebhook


def webhook_names_its_timer(promise: Promise, url: str) -> None:
    """The URL of a webhook ends with the id of its timer."""
    if str(promise.id) != url.rpartition("/")[2]:
        raise InvariantViolation(webhook_names_its_timer, promise, url)


def no_webhook_is_early(promise: Promise, now: float) -> None:
    """No call starts before its timer, or its retry, is due by the sender's clock.

    Invariant 4 of docs/design.md.
    """
    if now < promise.not_before:
        raise InvariantViolation(no_webhook_is_early, promise, promise.not_before - now, "ms")


def no_webhook_after_a_final_outcome(promise: Promise) -> None:
    """No call starts once the timer's final outcome is recorded.

    Invariant 6 of docs/design.md.
    """
    if promise.concluded:
        raise InvariantViolation(no_webhook_after_a_final_outcome, promise)


def one_sender_at_a_time(promise: Promise, mine: Lease | None, now: float) -> None:
    """No call starts while another sender holds the timer's lease.

    Invariant 3 of docs/design.md.
    """
    for lease in promise.leases:
        if lease is not mine and not lease.settled and now < lease.until:
            raise InvariantViolation(one_sender_at_a_time, promise, lease)


def no_webhook_after_removal(promise: Promise, claimed_at: float, now: float) -> None:
    """No call starts after an acknowledged cancel, nor after a purge unless claimed before it."""
    removal = promise.removed(now)
    if removal is None:
        return
    assert removal.acknowledged_at is not None
    # A purge does not wait for senders: one that had claimed the timer may still call.
    if not removal.purge or claimed_at > removal.acknowledged_at:
        raise InvariantViolation(no_webhook_after_removal, promise, removal)


def dispatcher_calls_once_at_a_time(promise: Promise, last: SentWebhook) -> None:
    """A dispatcher does not call for a timer while its last call for that timer goes on.

    Invariant 3 of docs/design.md.
    """
    if last not in promise.recorded and last.outcome is None:
        raise InvariantViolation(dispatcher_calls_once_at_a_time, promise)


def dispatcher_records_every_success(promise: Promise, last: SentWebhook) -> None:
    """A dispatcher that saw a success records it, however long that takes, and never calls again.

    Invariant 6 of docs/design.md.
    """
    if last not in promise.recorded and last.outcome is not None and succeeded(last.outcome):
        raise InvariantViolation(dispatcher_records_every_success, promise)


def first_call_is_not_too_late(promise: Promise, now: float) -> None:
    """The first call of a timer with a `max_lateness` starts within it, by the sender's clock."""
    allowed = promise.request.options.max_lateness_ms
    is_first = len(promise.recorded) == promise.recorded_before
    if allowed is not None and is_first and now > promise.not_before + allowed:
        raise InvariantViolation(first_call_is_not_too_late, promise, now - promise.not_before)
