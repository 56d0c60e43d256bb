"""The outstanding timers of one tenant by due time, merged from all partitions of the due index.

The index has the timers of all tenants, spread over ``2 * SHARDS`` partitions. So a page reads each
partition once, a bounded number of entries, and cannot go beyond the partition that ends first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import ARMED, UNARMED, number, text
from chalicelib.domain.selection import DuePosition

THREADS = 16
"""Partitions read at once."""


class DueList:
    """Lists the outstanding timers of a tenant. As every index, it may be slightly behind."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def page(
        self, tenant: str, after: DuePosition | None, limit: int
    ) -> tuple[Sequence[DuePosition], DuePosition | None]:
        """Return the next positions behind ``after``, at most ``limit``, and where to continue.

        A page may be short, even empty, although the list continues: most entries that were read
        may be other tenants'.
        """
        partitions = [f"{kind}{shard}" for kind in (ARMED, UNARMED) for shard in range(rows.SHARDS)]
        with ThreadPoolExecutor(THREADS) as threads:
            parts = list(
                threads.map(lambda name: self._read(name, tenant, after, limit), partitions)
            )
        ends = [end for _, end in parts if end is not None]
        # Beyond the first partition that was not read to its end, the order is not known.
        end = min(ends, default=None)
        merged = heapq.merge(*(found for found, _ in parts))
        found = [each for each in merged if end is None or each <= end]
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        return found, end

    def _read(
        self, partition: str, tenant: str, after: DuePosition | None, limit: int
    ) -> tuple[list[DuePosition], DuePosition | None]:
        """Return the tenant's positions in one partition, and the last one that was looked at.

        That is None if the partition was read to its end.
        """
        page, last = self._items.query(
            "#due_shard = :shard AND #next_attempt_at >= :at",
            {
                ":shard": text(partition),
                ":at": number(after.at if after else 0),
                ":mine": text(f"T#{tenant}#"),
            },
            index=rows.DUE_INDEX,
            keep="begins_with(#pk, :mine)",
            limit=limit + 1,
        )
        found = sorted(_position(row) for row in page if rows.tenant_of(row) == tenant)
        if after is not None:
            found = [each for each in found if each > after]
        return found, None if last is None else _position(last)


def _position(row: rows.Row) -> DuePosition:
    return DuePosition(int(row["next_attempt_at"]["N"]), int(row["id"]["N"]))
