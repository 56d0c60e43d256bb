"""A tenant's timers in the order of their ids, from the highest down.

A partition has 256 consecutive ids. The tenant's id counter tells where the highest ids are. Ids
have gaps, and whole partitions may be empty. So one step reads a limited number of partitions and
returns the id from which the next step continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.content_items import ContentItems
from chalicelib.aws.dynamodb.counter import last_id
from chalicelib.aws.dynamodb.filters import NO_FILTER, Filter
from chalicelib.aws.dynamodb.id_blocks import MAX_BLOCK
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.key_items import KeyItems
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.aws.key_holder import YOUNG_MS, KeyKind, KeyName
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

PARTITIONS_PER_STEP = 32
"""The most partitions that one step of a list or a purge reads."""

PURGE_MARK_TTL_MS = 5 * 60 * 1000
"""How long the progress of an unfinished purge is remembered, so that the next call continues."""

OPEN_IDS = 64 * MAX_BLOCK
"""Ids this far below the counter may still be unused: 64 processes may have a block of them."""


_KEYS = {KeyKind.REQUEST: "idempotency_key", KeyKind.TIMER: "key"}
"""The attributes of a timer that have its keys."""


class Partitions:
    """Lists and removes timers, partition by partition."""

    def __init__(
        self,
        items: Items,
        keys: KeyItems,
        contents: ContentItems,
        clock: Clock,
        *,
        per_step: int = PARTITIONS_PER_STEP,
        open_ids: int = OPEN_IDS,
    ) -> None:
        """For ``per_step`` and ``open_ids`` see the constants that are their defaults."""
        self._items = items
        self._keys = keys
        self._contents = contents
        self._clock = clock
        self._per_step = per_step
        self._open_ids = open_ids

    def below(
        self, tenant: str, before: int | None, keep: Filter, limit: int
    ) -> tuple[list[Row], int | None]:
        """Return up to ``limit`` rows with an id below ``before``, and the next ``before``."""
        top = last_id(self._items.read(rows.counter_key(tenant))) + 1
        start = top if before is None else min(before, top)
        found, below = self._walk(
            start, limit, lambda below, room: self._read(tenant, below, keep, room)
        )
        return found, below if below > 1 else None

    def purge(self, tenant: str, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``; return the next ``before``.

        It skips the range that an unfinished purge has emptied shortly before.
        """
        counter = self._items.read(rows.counter_key(tenant))
        mark = _PurgeMark.of(counter, self._clock())
        top = last_id(counter) + 1
        start = top if before is None else min(before, top)
        if mark is not None and mark.empty_below(start, self._open_ids):
            start = mark.bottom
        found, below = self._walk(
            start, limit, lambda below, room: self._read_keys(tenant, below, room)
        )
        self._mark_keys(tenant, found)
        # Deleted before the mark says so. In the other order, a purge that ends between the two
        # would leave timers in the range that the mark calls empty.
        self._items.delete_all([{"pk": row["pk"], "id": row["id"]} for row in found])
        self._contents.remove(tenant, found)
        self._update_mark(tenant, mark, below, purged_from=top if before is None else None)
        return below if below > 1 else None

    def _mark_keys(self, tenant: str, found: Sequence[Row]) -> None:
        """Mark the items of the keys of timers that are young and about to be removed."""
        now = self._clock()
        for row in found:
            if now - int(row["created_at"]["N"]) < YOUNG_MS:
                for kind, attribute in _KEYS.items():
                    if attribute in row:
                        name = KeyName(kind, tenant, row[attribute]["S"])
                        self._keys.mark_removed(name, int(row["id"]["N"]))

    def _update_mark(
        self, tenant: str, mark: _PurgeMark | None, below: int, *, purged_from: int | None
    ) -> None:
        """Remember that a purge has come down to ``below``, or forget it if it has finished.

        ``purged_from`` is the top of this purge. It is None if this step only continues one.
        """
        if below <= 1:
            if mark is not None:
                self._forget_mark(tenant)
        elif mark is not None:
            self._set_mark(tenant, mark.top, min(mark.bottom, below))
        elif purged_from is not None:
            self._set_mark(tenant, purged_from, below)
        # Else the mark became too old during the purge. Where the purge began is not known here.

    def _walk(
        self, below: int, limit: int, read: Callable[[int, int], tuple[list[Row], int]]
    ) -> tuple[list[Row], int]:
        """Read partitions from ``below`` down. Return the rows, and where to continue.

        ``read`` takes the id to start below and how many rows to return at most. It returns rows of
        one partition, and where to continue.
        """
        found: list[Row] = []
        for _ in range(self._per_step):
            if below <= 1 or len(found) >= limit:
                break
            part, below = read(below, limit - len(found))
            found += part
        return found, below

    def _read(self, tenant: str, below: int, keep: Filter, limit: int) -> tuple[list[Row], int]:
        """Return rows of the partition of the id ``below`` - 1, and where to continue."""
        if keep == NO_FILTER:
            return self._query(tenant, below, limit=limit)
        # DynamoDB counts rows towards its limit before it filters them. With a limit, each query
        # could return few rows or none. So the whole partition is read, and cut here.
        found, next_below = self._query(tenant, below, keep=keep)
        if len(found) > limit:
            return found[:limit], int(found[limit - 1]["id"]["N"])
        return found, next_below

    def _read_keys(self, tenant: str, below: int, limit: int) -> tuple[list[Row], int]:
        kept = "#pk, #id, #created_at, #key, #idempotency_key, #content"
        return self._query(tenant, below, attributes=kept, limit=limit)

    def _query(
        self,
        tenant: str,
        below: int,
        *,
        keep: Filter = NO_FILTER,
        attributes: str | None = None,
        limit: int | None = None,
    ) -> tuple[list[Row], int]:
        values = {":pk": text(rows.partition(tenant, below - 1)), ":below": number(below)}
        values |= keep.values
        found, last = self._items.query(
            "#pk = :pk AND #id < :below",
            values,
            keep=keep.expression,
            attributes=attributes,
            highest_first=True,
            limit=limit,
        )
        # Without a last key the partition is finished, so the next one continues.
        if last is None:
            return found, rows.first_of_partition(below - 1)
        return found, int(last["id"]["N"])

    def _set_mark(self, tenant: str, top: int, bottom: int) -> None:
        self._items.update(
            rows.counter_key(tenant),
            "SET #purge_top = :top, #purge_to = :bottom, #purged_at = :now",
            {
                ":top": number(top),
                ":bottom": number(bottom),
                ":now": number(int(self._clock())),
            },
        )

    def _forget_mark(self, tenant: str) -> None:
        self._items.update(rows.counter_key(tenant), "REMOVE #purge_top, #purge_to, #purged_at", {})


@dataclass(frozen=True, slots=True)
class _PurgeMark:
    """The progress of an unfinished purge: it has removed all timers in [``bottom``, ``top``).

    Without it, each call would begin at the top again and spend its time on partitions that are
    empty already. A large store could never be purged.
    """

    top: int
    bottom: int

    def empty_below(self, start: int, open_ids: int) -> bool:
        """Return whether the ids from ``start`` - 1 down to ``bottom`` are empty and stay so."""
        # Processes may still create timers with the ids of their blocks, up to ``open_ids`` below
        # the top. These ids are read again.
        return self.bottom < start <= self.top - open_ids

    @classmethod
    def of(cls, counter: Row | None, now: float) -> _PurgeMark | None:
        """Return the mark of an id counter, None if it has none or the mark is too old."""
        if counter is None or "purged_at" not in counter:
            return None
        if now - int(counter["purged_at"]["N"]) > PURGE_MARK_TTL_MS:
            return None
        return cls(top=int(counter["purge_top"]["N"]), bottom=int(counter["purge_to"]["N"]))
