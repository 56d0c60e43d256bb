"""The sparse index of failed timers, highest id first.

An outage fails a tenant's timers all at once, so they are spread over several partitions of the
index. A page merges the partitions.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number, text

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row


class FailedIndex:
    """Lists a tenant's failed timers. Like every index it may be a moment behind its table."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def below(
        self, tenant: str, before: int | None, limit: int
    ) -> tuple[Sequence[Row], int | None]:
        """Return up to ``limit`` rows with an id below ``before``, and the next ``before``."""
        parts = [
            self._part(partition, before, limit + 1) for partition in rows.failed_partitions(tenant)
        ]
        found = list(heapq.merge(*parts, key=_id_of, reverse=True))[: limit + 1]
        return found[:limit], _id_of(found[limit - 1]) if len(found) > limit else None

    def _part(self, partition: str, before: int | None, limit: int) -> Sequence[Row]:
        """Return the first rows of one partition, highest id first."""
        condition, values = "#failed_of = :partition", {":partition": text(partition)}
        if before is not None:
            condition += " AND #id < :before"
            values[":before"] = number(before)
        found: list[Row] = []
        after: Row | None = None
        while True:
            page, after = self._items.query(
                condition,
                values,
                index=rows.FAILED_INDEX,
                highest_first=True,
                limit=limit - len(found),
                after=after,
            )
            found += page
            if after is None or len(found) >= limit:
                return found


def _id_of(row: Row) -> int:
    return int(row["id"]["N"])
