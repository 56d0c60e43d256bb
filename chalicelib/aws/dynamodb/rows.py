"""The rows of the table: keys, shards, and a timer to and from its item. Pure functions.

A timer's item. SweepCutoffs are epoch milliseconds, UTC, unless said otherwise.

===============  ==================================================================================
pk               ``T#<tenant>#<block>``: a partition per 256 ids, so that no tenant is a hot one
id               the sort key
f                the format of the item: 1. A reader takes what it knows from a newer one
url              as it was given
status           pending, fired, failed
created_at       when it was accepted
due_at           when it is due
version          1, raised by every retry and reschedule
attempts         recorded answers
next_attempt_at  while outstanding; sort key of the index ``due``
due_shard        while outstanding; partition key of ``due``: ``a<n>`` armed, ``u<n>`` not
lease_until      while claimed
max_attempts     only where the timer has a policy of its own
timeout_s        likewise, in seconds
on_failure_url   only where somebody is to be told of its failure
log              once attempted: the record of the latest attempts, as ``record.encode`` writes it
token            of the claim. Kept when the claim is settled, as its receipt: a settle that is
                 repeated because its answer was lost knows itself by it
settled_at       once settled
expires_at       once settled: epoch **seconds**, when DynamoDB may drop the item (TTL)
failed_of        while failed: ``<tenant>#<n>``, partition key of the index ``failed``
woken_at         when a sweep last sent a wake-up; void under another version
===============  ==================================================================================

Two other kinds of item have ``id`` 0: ``C#<tenant>`` with ``last_id``, the highest id leased so
far, and ``STORE`` with ``identity``. Where tenants are held to a rate, the counter also has
``paid_until`` (``counter.py``); while a purge is cut off, ``purge_top``, ``purge_to`` and
``purged_at``: from where, down to where and when it removed everything. Keys lie under ``KEYS``
(``keys.py``).
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, TypeAlias

from chalicelib.domain.attempt_log import decode, encode
from chalicelib.domain.timer import Status, Timer, Wakeup
from chalicelib.service.ports import Reschedule, Settlement

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Row: TypeAlias = dict[str, AttributeValueTypeDef]

FORMAT = 1
BLOCK = 256
"""Ids per partition. Part of every key: it can never change."""

SHARDS = 64
"""Partitions of the due index, each good for 1,000 writes a second. Part of every row."""

FAILED_SHARDS = 8
"""Partitions of a tenant's failed timers: an outage fails them all at once. Part of every row."""

DUE_INDEX = "due"
FAILED_INDEX = "failed"
ARMED = "a"
UNARMED = "u"

_NAME = re.compile(r"#\w+")


def text(value: str) -> AttributeValueTypeDef:
    """Return a string as DynamoDB takes it."""
    return {"S": value}


def number(value: int) -> AttributeValueTypeDef:
    """Return a whole number as DynamoDB takes it."""
    return {"N": str(value)}


def names(*expressions: str | None) -> dict[str, str]:
    """Return the attributes that expressions name, each written as ``#attribute``.

    All are written so: which words DynamoDB reserves (``status``, ``token``, …) is not for a
    reader to know.
    """
    found = _NAME.findall(" ".join(filter(None, expressions)))
    return {name: name[1:] for name in found}


def first_of_block(timer_id: int) -> int:
    """Return the lowest id that shares a partition with ``timer_id``."""
    return timer_id - timer_id % BLOCK


def partition(tenant: str, timer_id: int) -> str:
    """Return a timer's partition. The block is digits only, so no two tenants share one."""
    return f"T#{tenant}#{timer_id // BLOCK}"


def timer_key(tenant: str, timer_id: int) -> Row:
    """Return the key of a timer."""
    return {"pk": text(partition(tenant, timer_id)), "id": number(timer_id)}


def counter_key(tenant: str) -> Row:
    """Return the key of a tenant's id counter."""
    return {"pk": text(f"C#{tenant}"), "id": number(0)}


def store_key() -> Row:
    """Return the key of the item that names the store."""
    return {"pk": text("STORE"), "id": number(0)}


def due_shard(tenant: str, timer_id: int, *, armed: bool) -> str:
    """Return the partition of the due index that a timer is in for as long as it exists."""
    shard = zlib.crc32(f"{tenant}#{timer_id}".encode()) % SHARDS
    return f"{ARMED if armed else UNARMED}{shard}"


def due_shards() -> list[str]:
    """Return every partition of the due index."""
    return [f"{kind}{shard}" for kind in (ARMED, UNARMED) for shard in range(SHARDS)]


def failed_partition(tenant: str, timer_id: int) -> str:
    """Return the partition of the index of failed timers that a timer is in while failed."""
    return f"{tenant}#{timer_id % FAILED_SHARDS}"


def failed_partitions(tenant: str) -> list[str]:
    """Return every partition that a tenant's failed timers may be in."""
    return [f"{tenant}#{shard}" for shard in range(FAILED_SHARDS)]


def store_row(identity: str) -> Row:
    """Return the item that names the store."""
    return {**store_key(), "f": number(FORMAT), "identity": text(identity)}


def new_row(timer: Timer) -> Row:
    """Return the item of an outstanding timer that was never claimed."""
    assert timer.next_attempt_at is not None
    row = {
        **timer_key(timer.tenant, timer.id),
        "f": number(FORMAT),
        "url": text(timer.url),
        "status": text(timer.status.value),
        "created_at": number(timer.created_at),
        "due_at": number(timer.due_at),
        "version": number(timer.version),
        "attempts": number(timer.attempts),
        "next_attempt_at": number(timer.next_attempt_at),
        "due_shard": text(due_shard(timer.tenant, timer.id, armed=timer.armed)),
    }
    if timer.max_attempts is not None:
        row["max_attempts"] = number(timer.max_attempts)
    if timer.timeout_s is not None:
        row["timeout_s"] = number(timer.timeout_s)
    if timer.on_failure_url is not None:
        row["on_failure_url"] = text(timer.on_failure_url)
    return row


def same_timer(row: Row, written: Row) -> bool:
    """Tell whether ``row`` is what became of ``written``: what never changes is the same."""
    return all(row.get(name) == written[name] for name in ("url", "created_at", "due_at"))


def timer_of(row: Row) -> Timer:
    """Return the timer of an item, of this format or, as far as it is known, a newer one."""
    lease_until = _number(row, "lease_until")
    next_attempt_at = _number(row, "next_attempt_at")
    return Timer(
        tenant=_tenant(row),
        id=int(row["id"]["N"]),
        url=row["url"]["S"],
        status=_status(row["status"]["S"], outstanding=next_attempt_at is not None),
        created_at=int(row["created_at"]["N"]),
        due_at=int(row["due_at"]["N"]),
        version=int(row["version"]["N"]),
        attempts=int(row["attempts"]["N"]),
        next_attempt_at=next_attempt_at,
        lease_until=lease_until,
        # Without a lease the token is only the receipt of a settled claim.
        token=None if lease_until is None else row["token"]["S"],
        settled_at=_number(row, "settled_at"),
        max_attempts=_number(row, "max_attempts"),
        timeout_s=_number(row, "timeout_s"),
        on_failure_url=_text(row, "on_failure_url"),
        log=decode(_text(row, "log")),
        armed=not row.get("due_shard", text(ARMED))["S"].startswith(UNARMED),
    )


def wakeup_of(row: Row) -> Wakeup:
    """Return the wake-up for an entry of the due index."""
    return Wakeup(
        tenant=_tenant(row),
        id=int(row["id"]["N"]),
        version=int(row["version"]["N"]),
        at=int(row["next_attempt_at"]["N"]),
    )


def settling(settlement: Settlement, retention_s: int) -> tuple[str, Row]:
    """Return the update that records a settlement, and its values.

    A retry moves in the due index; what is settled leaves it, and expires ``retention_s`` later.
    """
    values = {
        ":status": text(settlement.status.value),
        ":one": number(1),
        ":log": text(encode(settlement.log)),
    }
    if settlement.next_attempt_at is not None:
        shard = due_shard(settlement.tenant, settlement.id, armed=settlement.armed)
        values |= {":at": number(settlement.next_attempt_at), ":shard": text(shard)}
        return (
            "SET #status = :status, #next_attempt_at = :at, #due_shard = :shard, #log = :log "
            "REMOVE #lease_until, #woken_at ADD #attempts :one, #version :one"
        ), values
    values |= {
        ":now": number(settlement.now),
        ":expires_at": number(settlement.now // 1000 + retention_s),
    }
    failed = ""
    if settlement.status is Status.FAILED:
        failed = ", #failed_of = :failed_of"
        values[":failed_of"] = text(failed_partition(settlement.tenant, settlement.id))
    return (
        "SET #status = :status, #settled_at = :now, #expires_at = :expires_at, "
        f"#log = :log{failed} "
        "REMOVE #lease_until, #next_attempt_at, #due_shard, #woken_at ADD #attempts :one"
    ), values


def rescheduling(change: Reschedule) -> tuple[str, str, Row]:
    """Return the update that gives a timer another time, its condition, and their values."""
    update = (
        "SET #status = :pending, #next_attempt_at = :at, #due_at = :due_at, "
        "#due_shard = :shard, #attempts = :none "
        "REMOVE #token, #woken_at, #settled_at, #expires_at, #failed_of ADD #version :one"
    )
    return (
        update,
        "#status = :seen AND #version = :version AND attribute_not_exists(#lease_until)",
        {
            ":pending": text(Status.PENDING.value),
            ":at": number(change.at),
            ":due_at": number(change.due_at),
            ":shard": text(due_shard(change.tenant, change.id, armed=change.armed)),
            ":none": number(0),
            ":one": number(1),
            ":seen": text(change.status.value),
            ":version": number(change.version),
        },
    )


def receipt_of(row: Row | None, token: str) -> bool:
    """Tell whether a row that ``token`` could not settle bears it: then it has done so before."""
    return row is not None and row.get("token") == text(token)


def _tenant(row: Row) -> str:
    return row["pk"]["S"][2:].rpartition("#")[0]


def _text(row: Row, name: str) -> str | None:
    return row[name]["S"] if name in row else None


def _number(row: Row, name: str) -> int | None:
    return int(row[name]["N"]) if name in row else None


def _status(name: str, *, outstanding: bool) -> Status:
    try:
        return Status(name)
    except ValueError:
        return Status.PENDING if outstanding else Status.FAILED
