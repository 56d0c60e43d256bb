"""A tenant's timers by id, one partition of 256 after the other, from the highest down.

How far up they go is what the tenant's id counter says. Ids have gaps, and whole partitions may
be empty: a walk is bounded by the partitions it looks into, and says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.counter import last_id
from chalicelib.aws.dynamodb.ids import LARGEST_BLOCK
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.domain.timer import Status
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

BLOCKS_PER_STEP = 32
"""Partitions that one step of a list or a purge looks into at most."""

PURGE_GOES_ON_MS = 5 * 60 * 1000
"""How long a purge that ran out of time is remembered, so that the next call goes on."""


OPEN_IDS = 64 * LARGEST_BLOCK
"""How far below the counter a process may still hold leased ids, and set timers under them."""


class Blocks:
    """Lists and removes the timers of whole partitions."""

    def __init__(self, items: Items, clock: Clock) -> None:
        self._items = items
        self._clock = clock

    def below(
        self, tenant: str, before: int | None, status: Status | None, limit: int
    ) -> tuple[list[Row], int | None]:
        """Return up to ``limit`` rows with an id below ``before``, and the ``before`` to go on."""
        top = last_id(self._items.read(rows.counter_key(tenant))) + 1
        start = top if before is None else min(before, top)
        found, below = self._walk(
            start, limit, lambda below, room: self._block(tenant, below, status, room)
        )
        return found, below if below > 1 else None

    def purge(self, tenant: str, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``; return the ``before`` to go on."""
        counter = self._items.read(rows.counter_key(tenant))
        mark = _Mark.of(counter, self._clock())
        top = last_id(counter) + 1
        start = top if before is None else min(before, top)
        if mark is not None and mark.covers(start):
            start = mark.to
        keys, below = self._walk(
            start, limit, lambda below, room: self._block_keys(tenant, below, room)
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

    @staticmethod
    def _walk(
        below: int, limit: int, look: Callable[[int, int], tuple[list[Row], int]]
    ) -> tuple[list[Row], int]:
        found: list[Row] = []
        for _ in range(BLOCKS_PER_STEP):
            if below <= 1 or len(found) >= limit:
                break
            part, below = look(below, limit - len(found))
            found += part
        return found, below

    def _block(
        self, tenant: str, below: int, status: Status | None, limit: int
    ) -> tuple[list[Row], int]:
        """Return rows of the partition under ``below``, and the id below which to go on."""
        if status is None:
            return self._query(tenant, below, limit=limit)
        found, following = self._query(tenant, below, status=status)
        if len(found) > limit:
            return found[:limit], int(found[limit - 1]["id"]["N"])
        return found, following

    def _block_keys(self, tenant: str, below: int, limit: int) -> tuple[list[Row], int]:
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
            return found, rows.first_of_block(below - 1)
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
    """The ids that a purge has emptied so far: from ``to`` up to below ``top``.

    Without it, a purge that is cut off and called again would spend its time walking over what it
    emptied before, and a large store could never be purged.
    """

    top: int
    to: int

    def covers(self, below: int) -> bool:
        """Tell whether nothing is left, and nothing will come, from ``below`` down to ``to``."""
        return self.to < below <= self.top - OPEN_IDS

    @classmethod
    def of(cls, counter: Row | None, now: float) -> _Mark | None:
        """Read the mark from the id counter; one of long ago is void."""
        if counter is None or "purged_at" not in counter:
            return None
        if now - int(counter["purged_at"]["N"]) > PURGE_GOES_ON_MS:
            return None
        return cls(top=int(counter["purge_top"]["N"]), to=int(counter["purge_to"]["N"]))
