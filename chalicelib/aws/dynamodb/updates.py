"""The conditional updates of a timer's item: claim, settle, reschedule.

An attribute that is not set is absent, so that the sparse indexes contain only the timers that
belong in them. Each update therefore removes the attributes that no longer hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb.large_content import LargeContent
from chalicelib.aws.dynamodb.rows import due_shard, failed_partition, number, replaced_row, text
from chalicelib.domain.attempt_log import encode
from chalicelib.domain.claim import Claim, Reschedule, Settlement
from chalicelib.domain.keyed import Replacement
from chalicelib.domain.timer import UNDELIVERED, Status, Timer

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

NOT_LEASED = "(attribute_not_exists(#lease_until) OR #lease_until <= :now)"
"""No sender holds the timer at ``:now``.

A lease that has ended does not block: a sender that is slow checks its lease before it calls.
"""


@dataclass(frozen=True, slots=True)
class Update:
    """An update expression, the condition under which it applies, and the values of both."""

    change: str
    condition: str
    values: Row


def claiming(claim: Claim) -> Update:
    """Return the update that takes the lease on a due timer of the wake-up's version."""
    return Update(
        # No attribute of an index changes, so a claim costs no write of an index.
        "SET #lease_until = :lease_until, #token = :token",
        # A settled timer has no ``next_attempt_at``, so the comparison is false for it.
        f"#version = :version AND #next_attempt_at <= :now AND {NOT_LEASED}",
        {
            ":lease_until": number(claim.lease.until),
            ":token": text(claim.lease.token),
            ":version": number(claim.wakeup.version),
            ":now": number(claim.now),
        },
    )


def settling(settlement: Settlement, retention_s: int, *, armed: bool) -> Update:
    """Return the update that records the outcome of an attempt.

    A settled timer expires ``retention_s`` seconds later. If there is a retry, ``armed`` says
    whether its wake-up is registered.
    """
    if settlement.next_attempt_at is None:
        change, values = _final(settlement, retention_s)
    else:
        change, values = _retry(settlement, settlement.next_attempt_at, armed=armed)
    return Update(
        change,
        # The token alone is not enough: it stays after a settlement. ``lease_until`` does not.
        "#token = :token AND attribute_exists(#lease_until)",
        {
            **values,
            ":status": text(settlement.status.value),
            ":attempts": number(settlement.attempts),
            ":log": text(encode(settlement.log)),
            ":token": text(settlement.token),
        },
    )


def _retry(settlement: Settlement, at: int, *, armed: bool) -> tuple[str, Row]:
    """Return the change that gives the timer another time in the due index, and its values."""
    shard = due_shard(settlement.tenant, settlement.id, armed=armed)
    # A call that the receiver asked for is due then, and counted.
    due, repeats = (", #due_at = :at", ", #repeats :one") if settlement.repeat else ("", "")
    return (
        "SET #status = :status, #next_attempt_at = :at, #due_shard = :shard, #log = :log, "
        f"#attempts = :attempts{due} "
        # A mark of a sweep was for the wake-up of the old version.
        f"REMOVE #lease_until, #woken_at ADD #version :one{repeats}"
    ), {":at": number(at), ":shard": text(shard), ":one": number(1)}


def _final(settlement: Settlement, retention_s: int) -> tuple[str, Row]:
    """Return the change that takes the timer out of the due index, and its values."""
    values = {
        ":now": number(settlement.now),
        # DynamoDB's TTL is in seconds.
        ":expires_at": number(settlement.now // 1000 + retention_s),
    }
    failed = ""
    if settlement.status in UNDELIVERED:
        failed = ", #failed_of = :failed_of"
        values[":failed_of"] = text(failed_partition(settlement.tenant, settlement.id))
    return (
        "SET #status = :status, #settled_at = :now, #expires_at = :expires_at, "
        f"#log = :log, #attempts = :attempts{failed} "
        "REMOVE #lease_until, #next_attempt_at, #due_shard, #woken_at"
    ), values


def rescheduling(change: Reschedule, *, armed: bool) -> Update:
    """Return the update that gives a timer another time, and makes it outstanding."""
    bound, bound_value = same_bound(change.no_later_than)
    # The key of a settled timer is free, and another timer may have it by now.
    key = "" if change.status is Status.PENDING else ", #key"
    return Update(
        "SET #status = :pending, #next_attempt_at = :at, #due_at = :due_at, "
        "#due_shard = :shard, #attempts = :attempts "
        # Without removing ``expires_at``, DynamoDB would delete a replayed timer.
        f"REMOVE #token, #woken_at, #settled_at, #expires_at, #failed_of{key} ADD #version :one",
        # A lease counts even after its end: its sender may be slow and still be calling.
        "#status = :seen AND #version = :version AND attribute_not_exists(#lease_until) "
        f"AND {bound}",
        {
            **bound_value,
            ":pending": text(Status.PENDING.value),
            ":at": number(change.at),
            ":due_at": number(change.due_at),
            ":shard": text(due_shard(change.tenant, change.id, armed=armed)),
            ":attempts": number(change.attempts),
            ":one": number(1),
            ":seen": text(change.status.value),
            ":version": number(change.version),
        },
    )


def replacing(change: Replacement, *, armed: bool | None) -> tuple[Update, LargeContent | None]:
    """Return the update that moves a keyed timer and replaces what its client sends.

    Its large content, which is returned too, must be written before.
    ``armed`` tells whether its new wake-up is registered. None: it keeps the wake-up that it has.
    """
    before, after = change.before, change.after
    row, removed, content = replaced_row(after)
    removed.append("token")
    if armed is not None:
        row["due_shard"] = text(due_shard(after.tenant, after.id, armed=armed))
        # A mark of a sweep was for the wake-up of the old version.
        removed.append("woken_at")
    bound, bound_value = same_bound(before.no_later_than)
    update = Update(
        "SET "
        + ", ".join(f"#{name} = :new_{name}" for name in row)
        + " REMOVE "
        + ", ".join(f"#{name}" for name in removed),
        "#status = :pending AND #version = :version AND #next_attempt_at = :seen_at "
        f"AND #key = :key AND attribute_not_exists(#lease_until) AND {bound}",
        {
            **{f":new_{name}": value for name, value in row.items()},
            **bound_value,
            ":pending": text(Status.PENDING.value),
            ":version": number(before.version),
            ":seen_at": number(before.wakeup().at),
            ":key": text(before.key or ""),
        },
    )
    return update, content


def giving_up_key(timer: Timer) -> Update:
    """Return the update that takes the key from a timer that is in flight."""
    return Update(
        "REMOVE #key",
        "#key = :key AND #version = :version AND attribute_exists(#lease_until)",
        {":key": text(timer.key or ""), ":version": number(timer.version)},
    )


def same_bound(no_later_than: int | None) -> tuple[str, Row]:
    """Return the condition that a timer still has the bound that was seen, and its value.

    Another request may have tightened the bound. Then a time that was chosen within the old one may
    be beyond the new one.
    """
    if no_later_than is None:
        return "attribute_not_exists(#no_later_than)", {}
    return "#no_later_than = :no_later_than", {":no_later_than": number(no_later_than)}
