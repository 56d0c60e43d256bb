"""Large content of timers, in items of its own, so that no later write of a timer pays for it.

DynamoDB charges a write by the size of the whole item, and a delivered timer is written three
times. So a body and headers of more than ``MAX_BYTES_IN_ROW`` together (``large_content.py``) lie
in another item. It is written before the row, which refers to it, and read once for a delivery.

These are its attributes.

==========  ====================================================================================
pk          ``B#<tenant>#<id of the timer>``
id          the reference: a number made of the SHA-256 of headers and body
f           the format of the item: 1
headers     as in a timer's row
body        as in a timer's row
expires_at  epoch **seconds**, when DynamoDB may delete the item (TTL)
==========  ====================================================================================

A reference belongs to one content, so a write that is repeated, or that another request overtakes,
changes no content that a row refers to. An item without a row does no harm. It expires ``KEPT_S``
after its timer would, if that was delivered at its time, and is extended if the timer moves far
away. It is removed with its timer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.key_items import KEPT_S
from chalicelib.aws.dynamodb.large_content import APART, LargeContent, reference_of
from chalicelib.domain.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from chalicelib.aws.dynamodb.items import Items
    from chalicelib.aws.dynamodb.rows import Row

log = logging.getLogger(__name__)


class ContentItems:
    """The items of large contents. Thread-safe."""

    def __init__(self, items: Items, retention_s: int) -> None:
        self._items = items
        self._retention_s = retention_s

    def write(self, tenant: str, timer_id: int, content: LargeContent, due_at: int) -> None:
        """Write the content of a timer that is due at ``due_at`` (epoch ms), before its row."""
        expires_at = self._expiry(due_at)
        row: Row = {
            **_primary_key(tenant, timer_id, content.reference),
            "f": {"N": "1"},
            **content.attributes,
            "expires_at": expires_at,
        }
        # The same content may be there already, for a later time.
        with contextlib.suppress(ConditionFailed):
            self._items.put(
                row,
                "attribute_not_exists(#pk) OR #expires_at < :expires_at",
                {":expires_at": expires_at},
            )

    def complete(self, tenant: str, timer_id: int, row: Row) -> Row:
        """Return a timer's row with its content. Raises ``Unavailable`` if it cannot be read."""
        reference = reference_of(row)
        if reference is None:
            return row
        content = self._items.read(_primary_key(tenant, timer_id, reference))
        if content is None:
            # Never an empty webhook instead: a receiver would take it for what the client sent.
            log.error("the content of timer %s is missing", timer_id)
            raise Unavailable(f"The content of timer {timer_id} is missing.")
        return {**row, **{name: content[name] for name in APART if name in content}}

    def keep(self, tenant: str, timer_id: int, row: Row, until: int) -> None:
        """Make the content of a timer that is due at ``until`` (epoch ms) outlive it."""
        reference = reference_of(row)
        if reference is None:
            return
        later = self._expiry(until)
        with contextlib.suppress(ConditionFailed):
            self._items.update(
                _primary_key(tenant, timer_id, reference),
                "SET #expires_at = :later",
                {":later": later},
                condition="#expires_at < :later",
            )

    def remove(self, tenant: str, rows: Sequence[Row]) -> None:
        """Remove the contents of timers that are removed. What is left expires."""
        self._remove(
            [
                _primary_key(tenant, int(row["id"]["N"]), reference)
                for row in rows
                if (reference := reference_of(row)) is not None
            ]
        )

    def remove_all(self, tenant: str, timer_id: int) -> None:
        """Remove every content that a timer has had. What is left expires."""
        try:
            found, _ = self._items.query(
                "#pk = :pk", {":pk": _partition(tenant, timer_id)}, attributes="#pk, #id"
            )
        except Unavailable as error:
            log.warning("the contents of timer %s are left to expire: %s", timer_id, error.detail)
            return
        self._remove(found)

    def _remove(self, keys: Sequence[Row]) -> None:
        try:
            self._items.delete_all(keys)
        except Unavailable as error:
            log.warning("contents of removed timers are left to expire: %s", error.detail)

    def _expiry(self, due_at: int) -> AttributeValueTypeDef:
        return {"N": str(due_at // 1000 + self._retention_s + KEPT_S)}


def _primary_key(tenant: str, timer_id: int, reference: int) -> Row:
    return {"pk": _partition(tenant, timer_id), "id": {"N": str(reference)}}


def _partition(tenant: str, timer_id: int) -> AttributeValueTypeDef:
    # The part after the last # has digits only, so two tenants never share an item.
    return {"S": f"B#{tenant}#{timer_id}"}
