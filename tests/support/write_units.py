"""The units that writes to DynamoDB cost. Emulators do not count them, so the sizes of items do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infra.resources import table_definition
from tests.support.dynamodb import STAGE, TABLE, RecordingClient

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

WRITE_UNIT = 1_024
READ_UNIT = 4_096
"""Bytes of an item that one unit writes, or reads consistently (AWS)."""


def size(row: Mapping[str, Any]) -> int:
    """Return the bytes of an item as DynamoDB counts them, numbers at their most."""
    total = 0
    for name, value in row.items():
        ((kind, content),) = value.items()
        total += len(name.encode())
        if kind == "N":
            total += math.ceil(len(content.lstrip("-")) / 2) + 2
        else:
            total += len(content if kind == "B" else content.encode())
    return total


def units(before: Row | None, after: Row | None) -> int:
    """Return the write units of one write: the row, and each index whose entry changes."""
    total = math.ceil(max(size(before or {}), size(after or {}), 1) / WRITE_UNIT)
    for index in table_definition(STAGE)["GlobalSecondaryIndexes"]:
        key = [part["AttributeName"] for part in index["KeySchema"]]
        projected = {"pk", "id", *key, *index["Projection"].get("NonKeyAttributes", [])}
        whole = index["Projection"]["ProjectionType"] == "ALL"

        def entry(row: Row | None, key: list[str] = key) -> Row | None:
            return row if row is not None and all(name in row for name in key) else None

        old, new = entry(before), entry(after)
        if old is None or new is None:
            total += (old is None) != (new is None)
        elif any(old[name] != new[name] for name in key):
            total += 2
        else:
            seen = set(old) | set(new) if whole else projected
            total += any(old.get(name) != new.get(name) for name in seen)
    return total


@dataclass
class Units:
    """The units of all calls so far."""

    writes: int = 0
    reads: int = 0
    calls: list[str] = field(default_factory=list)


@contextmanager
def counted(client: RecordingClient) -> Iterator[Units]:
    """Count the units of single writes and reads of ``client`` while the context is open."""
    found, table = Units(), client.client

    def now(key: Any) -> Row | None:
        return table.get_item(TableName=TABLE, Key=key, ConsistentRead=True).get("Item")

    def write(real: Callable[..., Any], request: Any) -> Any:
        key = request.get("Key") or {name: request["Item"][name] for name in ("pk", "id")}
        before = now(key)
        try:
            return real(**request)
        finally:  # a write that fails its condition is charged for the item that is there
            found.writes += units(before, now(key))

    def read(real: Callable[..., Any], request: Any) -> Any:
        response = real(**request)
        found.reads += max(1, math.ceil(size(response.get("Item") or {}) / READ_UNIT))
        return response

    client.calls.clear()
    client.around = {
        **dict.fromkeys(("put_item", "update_item", "delete_item"), write),
        "get_item": read,
    }
    yield found
    client.around = {}
    found.calls = list(client.calls)
