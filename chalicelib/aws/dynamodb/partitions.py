"""A tenant's timers by id: one partition of 256 ids after the other, from the highest down.

The tenant's id counter says where to begin. Ids have gaps, and whole partitions may be empty. So
one step reads a bounded number of partitions and says where the next one continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.counter import last_id
from chalicelib.aws.dynamodb.id_blocks import MAX_BLOCK
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.domain.timer import Status
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

PARTITIONS_PER_STEP = 32
"""Partitions that one step of a list or a purge reads at most."""

PURGE_MEMORY_MS = 5 * 60 * 1000
"""How long a purge that ran out of time is remembered, so that the next call continues it."""

OPEN_IDS = 64 * MAX_BLOCK
"""How far below the counter ids may still be unused: other processes hold blocks of them."""


class Partitions:
    """Lists and removes timers, partition by partition."""

    def __init__(
        self,
        items: Items,
        clock: Clock,
        *,
        per_step: int = PARTITIONS_PER_STEP,
        open_ids: int = OPEN_IDS,
    ) -> None:
        """``per_step`` is how many partitions one step reads; see also the constants."""
        self._items = items
        self._clock = clock
        self._per_step = per_step
        self._open_ids = open_ids

    def below(
        self, tenant: str, before: int | None, status: Status | None, limit: int
    ) -> tuple[list[Row], int | None]:
        """Return up to ``limit`` rows with an id below ``before``, and the next ``before``."""
        top = last_id(self._items.read(rows.counter_key(tenant))) + 1
        start = top if before is None else min(before, top)
        found, below = self._walk(
            start, limit, lambda below, room: self._partition(tenant, below, status, room)
        )
        return found, below if below > 1 else None

    def purge(self, tenant: str, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``; return the next ``before``."""
        counter = self._items.read(rows.counter_key(tenant))
        mark = _Mark.of(counter, self._clock())
        top = last_id(counter) + 1
        start = top if before is None else min(before, top)
        if mark is not None and mark.covers(start, self._open_ids):
            start = mark.to
        keys, below = self._walk(
            start, limit, lambda below, room: self._partition_keys(tenant, below, room)
        )
        self._items.delete_all(keys)
        if below <= 1:
            if mark is not None:
                self._forget_mark(tenant)
            return None
        if mark is not None:
            self._set_mark(tenant, mark.top, min(mark.to, below))
        elif before is None:
            self._set_mark(tenant, top, below)
        return below

    def _walk(
        self, below: int, limit: int, look: Callable[[int, int], tuple[list[Row], int]]
    ) -> tuple[list[Row], int]:
        found: list[Row] = []
        for _ in range(self._per_step):
            if below <= 1 or len(found) >= limit:
                break
            part, below = look(below, limit - len(found))
            found += part
        return found, below

    def _partition(
        self, tenant: str, below: int, status: Status | None, limit: int
    ) -> tuple[list[Row], int]:
        """Return rows of the partition under ``below``, and the next ``below``."""
        if status is None:
            return self._query(tenant, below, limit=limit)
        found, following = self._query(tenant, below, status=status)
        if len(found) > limit:
            return found[:limit], int(found[limit - 1]["id"]["N"])
        return found, following

    def _partition_keys(self, tenant: str, below: int, limit: int) -> tuple[list[Row], int]:
        return self._query(tenant, below, only="#pk, #id", limit=limit)

    def _query(
        self,
        tenant: str,
        below: int,
        *,
        status: Status | None = None,
        only: str | None = None,
        limit: int | None = None,
    ) -> tuple[list[Row], int]:
        values = {":pk": text(rows.partition(tenant, below - 1)), ":below": number(below)}
        if status is not None:
            values[":status"] = text(status.value)
        found, last = self._items.query(
            "#pk = :pk AND #id < :below",
            values,
            wanted=None if status is None else "#status = :status",
            only=only,
            highest_first=True,
            limit=limit,
        )
        if last is None:
            return found, rows.first_of_partition(below - 1)
        return found, int(last["id"]["N"])

    def _set_mark(self, tenant: str, top: int, to: int) -> None:
        self._items.update(
            rows.counter_key(tenant),
            "SET #purge_top = :top, #purge_to = :to, #purged_at = :now",
            {":top": number(top), ":to": number(to), ":now": number(int(self._clock()))},
        )

    def _forget_mark(self, tenant: str) -> None:
        self._items.update(rows.counter_key(tenant), "REMOVE #purge_top, #purge_to, #purged_at", {})


@dataclass(frozen=True, slots=True)
class _Mark:
    """The progress of a purge: all timers from ``to`` up to below ``top`` are removed.

    A purge that is cut off and called again would otherwise spend its time on partitions that it
    has emptied before, and could never finish a large store.
    """

    top: int
    to: int

    def covers(self, below: int, open_ids: int) -> bool:
        """Tell whether no timer is left, and none can come, from ``below`` down to ``to``."""
        return self.to < below <= self.top - open_ids

    @classmethod
    def of(cls, counter: Row | None, now: float) -> _Mark | None:
        """Read the mark from the id counter; an old one is void."""
        if counter is None or "purged_at" not in counter:
            return None
        if now - int(counter["purged_at"]["N"]) > PURGE_MEMORY_MS:
            return None
        return cls(top=int(counter["purge_top"]["N"]), to=int(counter["purge_to"]["N"]))
