"""The items of keys in DynamoDB (``aws/key_holder.py``).

These are their attributes. The name of the table's sort key is ``id``.

==========  ====================================================================================
pk          ``I#<tenant>#<SHA-256 of the idempotency key>``, or ``K#<tenant>#<key of the timer>``
id          0
f           the format of the item: 1
timer       the id of the timer that the key stands for
created_at  when that timer was accepted
due_at      when it was due at first
digest      of an idempotent request: its SHA-256
removed     1 if the timer had a row and may be gone; missing otherwise
expires_at  epoch **seconds**, when DynamoDB may delete the item (TTL)
==========  ====================================================================================

An item must outlive its timer, and a settlement must not cost another write. So it expires
``KEPT_S`` after the timer would, if that was delivered at its time. A timer that moves far away has
its item extended.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.aws.key_holder import Holder, KeyKind, KeyName
from chalicelib.domain.errors import Unavailable

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

KEPT_S = 60 * 86_400
"""Longer than the retries of one timer and an outage together, in seconds."""

MIN_KEPT_S = KEPT_S // 2
"""An item that would expire sooner than this after its timer is extended."""


class KeyItems:
    """The items of all keys. Thread-safe."""

    def __init__(self, items: Items, retention_s: int) -> None:
        self._items = items
        self._retention_s = retention_s

    def find(self, name: KeyName) -> Holder | None:
        """Return the holder of a key, None if it has none."""
        row = self._items.read(_primary_key(name))
        return None if row is None else _holder_of(row)

    def assign(self, name: KeyName, holder: Holder, *, seen: Holder | None) -> Holder:
        """Give a key to ``holder`` if ``seen`` has it, or nobody. Return who has it afterwards."""
        condition, values = "attribute_not_exists(#pk)", {}
        if seen is not None:
            # DynamoDB may have deleted the item since it was seen.
            condition += " OR #timer = :seen"
            values[":seen"] = number(seen.timer_id)
        try:
            self._items.put(self._row_of(name, holder), condition, values)
        except ConditionFailed as failure:
            if failure.row is None:
                raise Unavailable("DynamoDB does not say who has the key.") from failure
            # A repeated put whose first try applied finds its own item.
            return _holder_of(failure.row)
        return holder

    def mark_removed(self, name: KeyName, timer_id: int) -> None:
        """Note that the timer had a row and is about to be removed."""
        # Another timer may have the key by now.
        with contextlib.suppress(ConditionFailed):
            self._items.update(
                _primary_key(name),
                "SET #removed = :one",
                {":one": number(1), ":timer": number(timer_id)},
                condition="#timer = :timer",
            )

    def keep(self, name: KeyName, timer_id: int, until: int) -> None:
        """Make the item of a timer that is due at ``until`` (epoch ms) outlive it."""
        with contextlib.suppress(ConditionFailed):
            self._items.update(
                _primary_key(name),
                "SET #expires_at = :later",
                {":later": number(self._expiry(until, KEPT_S)), ":timer": number(timer_id)},
                condition="#timer = :timer AND #expires_at < :later",
            )

    def lasts(self, holder: Holder, until: int) -> bool:
        """Return whether the item outlives its timer if that is due at ``until`` (epoch ms)."""
        return holder.expires_at >= self._expiry(until, MIN_KEPT_S)

    def _expiry(self, due_at: int, margin_s: int) -> int:
        return due_at // 1000 + self._retention_s + margin_s

    def _row_of(self, name: KeyName, holder: Holder) -> Row:
        digest: Row = {} if holder.digest is None else {"digest": {"B": holder.digest}}
        return {
            **_primary_key(name),
            "f": number(rows.FORMAT),
            "timer": number(holder.timer_id),
            "created_at": number(holder.created_at),
            "due_at": number(holder.due_at),
            "expires_at": number(self._expiry(holder.due_at, KEPT_S)),
            **digest,
        }


def _primary_key(name: KeyName) -> Row:
    # The part after the last # has none itself, so two tenants never share an item.
    last = name.key
    if name.kind is KeyKind.REQUEST:
        last = hashlib.sha256(name.key.encode()).hexdigest()
    return {"pk": text(f"{name.kind.value}#{name.tenant}#{last}"), "id": number(0)}


def _holder_of(row: Row) -> Holder:
    item: Any = row
    return Holder(
        timer_id=int(item["timer"]["N"]),
        created_at=int(item["created_at"]["N"]),
        due_at=int(item["due_at"]["N"]),
        digest=bytes(item["digest"]["B"]) if "digest" in item else None,
        removed="removed" in item,
        expires_at=int(item["expires_at"]["N"]),
    )
