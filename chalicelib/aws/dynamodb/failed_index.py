"""The sparse index of failed timers, highest id first.

An outage of a receiver fails many timers of a tenant at once. So they are spread over several
partitions of the index, and a page merges these partitions.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.filters import Filter
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number, text

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row


class FailedIndex:
    """Lists a tenant's failed and expired timers.

    As every index, it may be slightly behind its table.
    """

    def __init__(self, items: Items) -> None:
        self._items = items

    def below(
        self, tenant: str, before: int | None, keep: Filter, limit: int
    ) -> tuple[Sequence[Row], int | None]:
        """Return rows of the status in ``keep``, failed or expired, and the next ``before``.

        They are at most ``limit`` and have ids below ``before``.
        """
        # All of a page may be in one partition, so each partition is read for a whole page. One
        # more row tells whether the list continues.
        partitions = [
            self._read(partition, before, keep, limit + 1)
            for partition in rows.failed_partitions(tenant)
        ]
        found = list(heapq.merge(*partitions, key=_id_of, reverse=True))[: limit + 1]
        return found[:limit], _id_of(found[limit - 1]) if len(found) > limit else None

    def _read(self, partition: str, before: int | None, keep: Filter, limit: int) -> Sequence[Row]:
        """Return up to ``limit`` rows of one partition, highest id first."""
        condition = "#failed_of = :partition"
        values = {":partition": text(partition), **keep.values}
        if before is not None:
            condition += " AND #id < :before"
            values[":before"] = number(before)
        found: list[Row] = []
        next_key: Row | None = None
        while True:
            page, next_key = self._items.query(
                condition,
                values,
                index=rows.FAILED_INDEX,
                keep=keep.expression,
                highest_first=True,
                limit=limit - len(found),
                after=next_key,
            )
            found += page
            if next_key is None or len(found) >= limit:
                return found


def _id_of(row: Row) -> int:
    return int(row["id"]["N"])
