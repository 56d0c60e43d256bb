"""The due index as a sweep uses it: read one shard at a time, and mark the timers woken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import ARMED, UNARMED, number, text
from chalicelib.domain.timer import Wakeup
from chalicelib.service.ports import SweepCutoffs

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.aws.dynamodb.rows import Row

PAGE_SIZE = 100
"""Rows per query. Each page is sent and marked before the next is read, within the time budget."""

_NOT_WOKEN = "attribute_not_exists(#woken_at) OR #woken_at < :woken"

_FOR_EVER = 2**53
"""A time after every time in a row (epoch ms)."""


class DynamoDBDueIndex:
    """The sparse index of outstanding timers. Thread-safe."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._items = Items(client, table)

    def shards(self) -> Sequence[int]:
        """Return the shards, which can be read side by side."""
        return range(rows.SHARDS)

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        """Yield the wake-ups of one shard within ``cutoffs``, a page at a time, earliest first.

        A page may be empty, because DynamoDB filters marked timers after reading a page.
        """
        yield from self._pages(f"{ARMED}{shard}", cutoffs.overdue, cutoffs.woken)
        yield from self._pages(f"{UNARMED}{shard}", cutoffs.upcoming, cutoffs.woken)

    def armed(self, shard: int) -> Iterator[Sequence[Wakeup]]:
        """Yield the wake-ups of all armed timers of one shard, a page at a time, earliest first."""
        yield from self._pages(f"{ARMED}{shard}", _FOR_EVER, _FOR_EVER)

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> None:
        """Note that ``wakeup`` was sent at ``now``, unless it is void or was noted already."""
        # The timer may have changed since ``find`` read it. A mark on its new version would make
        # the next sweeps skip it, although nobody has woken that version.
        with contextlib.suppress(ConditionFailed):
            self._items.update(
                rows.timer_key(wakeup.tenant, wakeup.id),
                "SET #woken_at = :now",
                {
                    ":now": number(now),
                    ":version": number(wakeup.version),
                    ":woken": number(cutoffs.woken),
                },
                condition="#version = :version AND attribute_exists(#due_shard) "
                f"AND ({_NOT_WOKEN})",
            )

    def _pages(self, partition: str, due_by: int, woken: int) -> Iterator[Sequence[Wakeup]]:
        next_key: Row | None = None
        while True:
            page, next_key = self._items.query(
                "#due_shard = :shard AND #next_attempt_at <= :due_by",
                {":shard": text(partition), ":due_by": number(due_by), ":woken": number(woken)},
                index=rows.DUE_INDEX,
                keep=_NOT_WOKEN,
                limit=PAGE_SIZE,
                after=next_key,
            )
            yield [rows.wakeup_of(row) for row in page]
            if next_key is None:
                return
