"""The outstanding timers of one tenant by due time, merged from all partitions of the due index.

The index has the timers of all tenants, spread over ``2 * SHARDS`` partitions. So a page reads each
partition once, a bounded number of entries, and cannot go beyond the partition that ends first.
DynamoDB keeps the entries of one moment in no order of ours, so those of the last moment are read
to their end: otherwise a page could miss some, or end where it began.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
        """Return the tenant's positions in one partition, and the place up to which it was read.

        That is None if the partition was read to its end.
        """
        start = after.rest_at if after else 0
        page, last = self._query(partition, tenant, ">= :at", start, limit=limit + 1)
        end = None
        if last is not None:
            end = DuePosition.behind(int(last["next_attempt_at"]["N"]))
            page = [row for row in page if int(row["next_attempt_at"]["N"]) < end.at]
            page += self._all_at(partition, tenant, end.at)
        found = sorted(_position(row) for row in page if rows.tenant_of(row) == tenant)
        return [each for each in found if after is None or each > after], end

    def _all_at(self, partition: str, tenant: str, at: int) -> Iterator[rows.Row]:
        """Yield every row of one moment, however many there are."""
        page, last = self._query(partition, tenant, "= :at", at)
        yield from page
        while last is not None:
            page, last = self._query(partition, tenant, "= :at", at, after=last)
            yield from page

    def _query(
        self, partition: str, tenant: str, times: str, at: int, **page: Any
    ) -> tuple[list[rows.Row], rows.Row | None]:
        return self._items.query(
            f"#due_shard = :shard AND #next_attempt_at {times}",
            {":shard": text(partition), ":at": number(at), ":mine": text(f"T#{tenant}#")},
            index=rows.DUE_INDEX,
            keep="begins_with(#pk, :mine)",
            **page,
        )


def _position(row: rows.Row) -> DuePosition:
    return DuePosition(int(row["next_attempt_at"]["N"]), int(row["id"]["N"]))
