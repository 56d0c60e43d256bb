"""Divides the attributes of a timer: large content lies in an item of its own. Pure.

See ``content_items.py``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from chalicelib.aws.dynamodb.rows import Row

MAX_BYTES_IN_ROW = 400
"""Headers and a body of so many bytes together leave most rows within 1 KB, one write unit."""

REFERENCE = "content"
"""The attribute of a timer's row that refers to its content."""

APART = ("headers", "body")
_REFERENCE_BYTES = 15
"""DynamoDB's numbers have 38 digits (AWS limit), and 15 bytes are 37."""


@dataclass(frozen=True, slots=True)
class LargeContent:
    """The attributes of a timer that lie in an item of their own, and the reference to them."""

    reference: int
    attributes: Row


def divide(optional: Row) -> tuple[Row, LargeContent | None]:
    """Return the optional attributes of a timer for its row, and those for another item."""
    apart = {name: optional[name] for name in APART if name in optional}
    if sum(map(_size, apart.values())) <= MAX_BYTES_IN_ROW:
        return optional, None
    digest = hashlib.sha256(
        b"\0".join(_bytes(apart.get(name, {"S": ""})) for name in APART)
    ).digest()
    reference = int.from_bytes(digest[:_REFERENCE_BYTES], "big")
    row = {name: value for name, value in optional.items() if name not in apart}
    return {**row, REFERENCE: {"N": str(reference)}}, LargeContent(reference, apart)


def reference_of(row: Row) -> int | None:
    """Return the reference of a timer's row to its content, None if that lies in the row."""
    return int(row[REFERENCE]["N"]) if REFERENCE in row else None


def _size(attribute: AttributeValueTypeDef) -> int:
    return len(_bytes(attribute))


def _bytes(attribute: AttributeValueTypeDef) -> bytes:
    return attribute["S"].encode() if "S" in attribute else bytes(attribute["B"])
