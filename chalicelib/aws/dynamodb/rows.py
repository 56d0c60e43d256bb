"""The items of the table: primary keys, shards, and a timer to and from its item. Pure functions.

A timer's item. Times are epoch milliseconds, UTC, unless said otherwise.

===============  ==================================================================================
pk               ``T#<tenant>#<id // 256>``: a partition per 256 ids, so that no tenant is hot
id               the sort key
f                the format of the item: 1. A reader takes what it knows from a newer one
url              as the client gave it
status           pending, fired, failed
created_at       when it was accepted
due_at           when it is due
version          1, raised by every retry and reschedule
attempts         the number of recorded attempts
next_attempt_at  while outstanding; sort key of the index ``due``
due_shard        while outstanding; partition key of ``due``: ``a<n>`` armed, ``u<n>`` unarmed
lease_until      while claimed
max_attempts     only where the timer has this option
timeout_s        only where the timer has this option; seconds
on_failure_url   only where the timer has this option
log              once attempted: the latest attempt records, as ``attempt_log.encode`` writes them
token            of the claim. It stays when the claim is settled, as a receipt: a settlement that
                 is repeated because its response was lost recognises itself by it
settled_at       once settled
expires_at       once settled: epoch **seconds**, when DynamoDB may delete the item (TTL)
failed_of        while failed: ``<tenant>#<n>``, partition key of the index ``failed``
woken_at         when a sweep last sent a wake-up; void under another version
===============  ==================================================================================

An outstanding timer is *armed* if its wake-up was registered before the row was written. The
sweeper trusts the wake-up of an armed timer until it is overdue, and wakes unarmed ones itself.

Three other kinds of item:

- ``C#<tenant>`` with ``id`` 0 is the id counter. ``last_id`` is the highest id reserved so far.
  Where tenants are held to a rate it also has ``paid_until`` (``counter.py``). While a purge is cut
  off it has ``purge_top``, ``purge_to`` and ``purged_at``: the range it has emptied, and when.
- ``STORE`` with ``id`` 0 has ``identity``, the store's random name.
- ``KEYS`` is the partition of API keys (``api_keys.py``).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

from chalicelib.domain.attempt_log import decode, encode
from chalicelib.domain.claim import Reschedule, Settlement
from chalicelib.domain.timer import NO_OPTIONS, DeliveryOptions, Lease, Status, Timer, Wakeup

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Row: TypeAlias = dict[str, AttributeValueTypeDef]

FORMAT = 1
IDS_PER_PARTITION = 256
"""Part of every primary key: it can never change."""

SHARDS = 64
"""Partitions of the due index, each good for 1,000 writes a second (AWS limit). In every row."""

FAILED_SHARDS = 8
"""Partitions of a tenant's failed timers: an outage fails them all at once. In every row."""

DUE_INDEX = "due"
FAILED_INDEX = "failed"
ARMED = "a"
UNARMED = "u"

_NAME = re.compile(r"#\w+")
_OPTIONS = tuple(option.name for option in fields(DeliveryOptions))


def text(value: str) -> AttributeValueTypeDef:
    """Return a string as DynamoDB takes it."""
    return {"S": value}


def number(value: int) -> AttributeValueTypeDef:
    """Return a whole number as DynamoDB takes it."""
    return {"N": str(value)}


def names(*expressions: str | None) -> dict[str, str]:
    """Return the attributes that expressions name, each written as ``#attribute``.

    All names are written so, because DynamoDB reserves some (``status``, ``token``, …).
    """
    found = _NAME.findall(" ".join(filter(None, expressions)))
    return {name: name[1:] for name in found}


def first_of_partition(timer_id: int) -> int:
    """Return the lowest id that shares a partition with ``timer_id``."""
    return timer_id - timer_id % IDS_PER_PARTITION


def partition(tenant: str, timer_id: int) -> str:
    """Return a timer's partition. It ends in digits only, so no two tenants share one."""
    return f"T#{tenant}#{timer_id // IDS_PER_PARTITION}"


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


def failed_partition(tenant: str, timer_id: int) -> str:
    """Return the partition of the index of failed timers that a timer is in while failed."""
    return f"{tenant}#{timer_id % FAILED_SHARDS}"


def failed_partitions(tenant: str) -> list[str]:
    """Return every partition that a tenant's failed timers may be in."""
    return [f"{tenant}#{shard}" for shard in range(FAILED_SHARDS)]


def store_row(identity: str) -> Row:
    """Return the item that names the store."""
    return {**store_key(), "f": number(FORMAT), "identity": text(identity)}


def new_row(timer: Timer, *, armed: bool) -> Row:
    """Return the item of an outstanding timer that was never claimed."""
    return {
        **timer_key(timer.tenant, timer.id),
        "f": number(FORMAT),
        "url": text(timer.url),
        "status": text(timer.status.value),
        "created_at": number(timer.created_at),
        "due_at": number(timer.due_at),
        "version": number(timer.version),
        "attempts": number(timer.attempts),
        "next_attempt_at": number(timer.wakeup().at),
        "due_shard": text(due_shard(timer.tenant, timer.id, armed=armed)),
        **_options_row(timer.options),
    }


def same_timer(row: Row, written: Row) -> bool:
    """Tell whether ``row`` began as ``written``: the attributes that never change are equal."""
    return all(row.get(name) == written[name] for name in ("url", "created_at", "due_at"))


def timer_of(row: Row) -> Timer:
    """Return the timer of an item, of this format or, as far as it is known, a newer one."""
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
        lease=_lease(row),
        settled_at=_number(row, "settled_at"),
        options=_options(row),
        log=decode(_text(row, "log")),
    )


def wakeup_of(row: Row) -> Wakeup:
    """Return the wake-up for an entry of the due index."""
    return Wakeup(
        tenant=_tenant(row),
        id=int(row["id"]["N"]),
        version=int(row["version"]["N"]),
        at=int(row["next_attempt_at"]["N"]),
    )


def settling(settlement: Settlement, retention_s: int, *, armed: bool) -> tuple[str, Row]:
    """Return the update that records a settlement, and its values.

    A retry moves in the due index. A settled timer leaves it, and expires ``retention_s`` later.
    """
    values = {
        ":status": text(settlement.status.value),
        ":one": number(1),
        ":log": text(encode(settlement.log)),
    }
    if settlement.next_attempt_at is not None:
        shard = due_shard(settlement.tenant, settlement.id, armed=armed)
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


def rescheduling(change: Reschedule, *, armed: bool) -> tuple[str, str, Row]:
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
            ":shard": text(due_shard(change.tenant, change.id, armed=armed)),
            ":none": number(0),
            ":one": number(1),
            ":seen": text(change.status.value),
            ":version": number(change.version),
        },
    )


def was_settled_by(row: Row | None, token: str) -> bool:
    """Tell whether a row bears ``token`` as the receipt of an earlier settlement."""
    return row is not None and row.get("token") == text(token)


def _options_row(options: DeliveryOptions) -> Row:
    """Return the attributes of options, those that are not set left out."""
    attributes: Row = {}
    for name in _OPTIONS:
        value = getattr(options, name)
        if value is not None:
            attributes[name] = number(value) if isinstance(value, int) else text(value)
    return attributes


def _options(row: Row) -> DeliveryOptions:
    given = {name: row[name] for name in _OPTIONS if name in row}
    if not given:
        return NO_OPTIONS
    values: dict[str, Any] = {
        name: int(value["N"]) if "N" in value else value["S"] for name, value in given.items()
    }
    return DeliveryOptions(**values)


def _lease(row: Row) -> Lease | None:
    """Return who holds the timer. Without ``lease_until`` the token is a receipt, no lease."""
    until = _number(row, "lease_until")
    return None if until is None else Lease(token=row["token"]["S"], until=until)


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
