"""The items of the table: their primary keys and shards, and the conversion of timers.

These are the attributes of a timer's item. Times are epoch milliseconds, UTC, unless the table says
otherwise.

===============  ==================================================================================
pk               ``T#<tenant>#<id // 256>``: a partition per 256 ids, to spread a tenant's writes
id               the sort key
f                the format of the item: 1. Readers ignore attributes that they do not know
url              as the client wrote it
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
…                the other fields of ``optional_fields.py``, only where the timer has them
content          instead of large headers and a large body: the reference to their item
                 (``content_items.py``)
log              after an attempt: the latest attempt records, as ``attempt_log.encode`` writes them
repeats          how often its receiver asked to be called again; missing if never
token            of the claim. It stays after the settlement. When the client repeats a settlement
                 whose response was lost, the token shows that the first try applied
settled_at       once settled
expires_at       once settled: epoch **seconds**, when DynamoDB may delete the item (TTL)
failed_of        while failed: ``<tenant>#<n>``, partition key of the index ``failed``
woken_at         when a sweep last sent a wake-up. A new version removes it
===============  ==================================================================================

An outstanding timer is *armed* if its wake-up was registered before the row was written. The
sweeper relies on the wake-up of an armed timer until it is overdue, and wakes unarmed ones itself.

Five other kinds of item:

- ``C#<tenant>`` with ``id`` 0 is the id counter. ``last_id`` is the highest id reserved so far.
  If the rate of creates is limited, it has ``paid_until`` and ``paid_at`` in epoch microseconds
  (``counter.py``). While a purge is unfinished it has ``purge_top`` and ``purge_to``, the range
  that is empty, and ``purged_at``.
- ``I#<tenant>#…`` and ``K#<tenant>#<key>`` with ``id`` 0 say which timer has a key
  (``key_items.py``).
- ``B#<tenant>#<id>`` has large content of a timer (``content_items.py``).
- ``STORE`` with ``id`` 0 has ``identity``, the store's random name.
- ``KEYS`` is the partition of API keys (``api_keys.py``).
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

from chalicelib.aws.dynamodb.large_content import REFERENCE, LargeContent, divide
from chalicelib.domain.attempt_log import decode
from chalicelib.domain.optional_fields import NAMES, optional_fields, read_optional_fields
from chalicelib.domain.timer import Lease, Status, Timer, Wakeup

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Row: TypeAlias = dict[str, AttributeValueTypeDef]

FORMAT = 1

# These three numbers are part of stored rows, so they can never change.
IDS_PER_PARTITION = 256
SHARDS = 64
"""Shards of the due index. Each has two partitions, for armed and for unarmed timers.

A partition is good for 1,000 writes a second (AWS limit).
"""

FAILED_SHARDS = 8
"""Partitions of a tenant's failed timers. An outage of a receiver fails many at once."""

DUE_INDEX = "due"
FAILED_INDEX = "failed"
ARMED = "a"
UNARMED = "u"

_NAME = re.compile(r"#\w+")


def text(value: str) -> AttributeValueTypeDef:
    """Return a string as an attribute value of DynamoDB."""
    return {"S": value}


def number(value: int) -> AttributeValueTypeDef:
    """Return a whole number as an attribute value of DynamoDB."""
    return {"N": str(value)}


def names(*expressions: str | None) -> dict[str, str]:
    """Return ``ExpressionAttributeNames`` for expressions that write attributes as ``#attribute``.

    All attributes are written like this, because DynamoDB reserves some names (``status``,
    ``token``, …).
    """
    found = _NAME.findall(" ".join(filter(None, expressions)))
    return {name: name[1:] for name in found}


def first_of_partition(timer_id: int) -> int:
    """Return the lowest id that shares a partition with ``timer_id``."""
    return timer_id - timer_id % IDS_PER_PARTITION


def partition(tenant: str, timer_id: int) -> str:
    """Return a timer's partition."""
    # The part after the last # has digits only, so two tenants never share a partition.
    return f"T#{tenant}#{timer_id // IDS_PER_PARTITION}"


def timer_key(tenant: str, timer_id: int) -> Row:
    """Return the primary key of a timer."""
    return {"pk": text(partition(tenant, timer_id)), "id": number(timer_id)}


def counter_key(tenant: str) -> Row:
    """Return the primary key of a tenant's id counter."""
    return {"pk": text(f"C#{tenant}"), "id": number(0)}


def store_key() -> Row:
    """Return the primary key of the item that names the store."""
    return {"pk": text("STORE"), "id": number(0)}


def due_shard(tenant: str, timer_id: int, *, armed: bool) -> str:
    """Return the partition of the due index for a timer."""
    # Not ``hash``: it differs between processes.
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


def new_row(timer: Timer, *, armed: bool) -> tuple[Row, LargeContent | None]:
    """Return the item of an outstanding timer that was never claimed, and its large content."""
    optional, content = divide(_optional_row(timer))
    row = {
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
        **optional,
    }
    return row, content


def same_timer(row: Row, written: Row) -> bool:
    """Return whether ``row`` was first written as ``written``.

    A sender may have claimed the timer since then. So only attributes that stay are compared. Two
    equal idempotent requests write the same timer.
    """
    compared = ("url", "created_at", "due_at")
    if "request_digest" in written:
        compared = ("created_at", "idempotency_key", "request_digest")
    return all(row.get(name) == written[name] for name in compared)


def timer_of(row: Row) -> Timer:
    """Return the timer of an item of this format or a newer one.

    Without what ``ContentItems.complete`` adds, large headers and a large body are missing.
    """
    next_attempt_at = _number(row, "next_attempt_at")
    return Timer(
        tenant=tenant_of(row),
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
        repeats=_number(row, "repeats") or 0,
        log=decode(_text(row, "log")),
        **_optional(row),
    )


def wakeup_of(row: Row) -> Wakeup:
    """Return the wake-up for an entry of the due index."""
    return Wakeup(
        tenant=tenant_of(row),
        id=int(row["id"]["N"]),
        version=int(row["version"]["N"]),
        at=int(row["next_attempt_at"]["N"]),
    )


def replaced_row(after: Timer) -> tuple[Row, list[str], LargeContent | None]:
    """Return the attributes to set in the item of a timer to make it ``after``, and to remove.

    ``after`` is the outstanding timer that ``domain/keyed.py`` made of it. Its large content is
    returned too.
    """
    optional, content = divide(_optional_row(after))
    row = {
        "url": text(after.url),
        "due_at": number(after.due_at),
        "next_attempt_at": number(after.wakeup().at),
        "version": number(after.version),
        "attempts": number(after.attempts),
        **optional,
    }
    return row, [name for name in (*NAMES, REFERENCE) if name not in row], content


def was_settled_by(row: Row | None, token: str) -> bool:
    """Return whether a row keeps ``token`` from an earlier settlement."""
    return row is not None and row.get("token") == text(token)


def _optional_row(timer: Timer) -> Row:
    """Return the attributes of the optional fields that the timer has."""
    return {name: _attribute(value) for name, value in optional_fields(timer).items()}


def _attribute(value: int | str | bytes) -> AttributeValueTypeDef:
    if isinstance(value, bytes):
        return {"B": value}
    return number(value) if isinstance(value, int) else text(value)


def _optional(row: Row) -> dict[str, Any]:
    given = [name for name in NAMES if name in row]
    return read_optional_fields({name: _value(row[name]) for name in given}) if given else {}


def _value(attribute: Any) -> int | str | bytes:
    ((kind, value),) = attribute.items()
    return int(value) if kind == "N" else value


def _lease(row: Row) -> Lease | None:
    """Return the lease on a timer, None if it is not claimed."""
    # A token without ``lease_until`` belongs to an earlier settlement. See the table above.
    until = _number(row, "lease_until")
    return None if until is None else Lease(token=row["token"]["S"], until=until)


def tenant_of(row: Row) -> str:
    """Return the tenant of a timer's item."""
    # Without ``T#`` in front and ``#<partition>`` behind.
    return row["pk"]["S"][2:].rpartition("#")[0]


def _text(row: Row, name: str) -> str | None:
    return row[name]["S"] if name in row else None


def _number(row: Row, name: str) -> int | None:
    return int(row[name]["N"]) if name in row else None


def _status(name: str, *, outstanding: bool) -> Status:
    try:
        return Status(name)
    except ValueError:
        # A newer version may have further states. Whether the timer is outstanding is certain.
        return Status.PENDING if outstanding else Status.FAILED
