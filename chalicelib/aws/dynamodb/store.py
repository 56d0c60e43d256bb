"""The timer store on DynamoDB.

A delivered timer costs five write units and no read: the put (row and due index), the claim
(row), the settle (row and due index). What a failed write needs to know of the row comes back
with the failure.

The client repeats a write whose answer was lost, so every write knows its own first try again.
"""

from __future__ import annotations

import heapq
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.blocks import Blocks
from chalicelib.aws.dynamodb.counter import Counter
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.ids import IdLeases
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.domain.errors import TimerChanged, TimerInFlight, TimerNotFound, Unavailable
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import NewTimer, Status, Timer, Wakeup
from chalicelib.service.ports import (
    Arm,
    Claim,
    Clock,
    Page,
    Refusal,
    Refused,
    Reschedule,
    Settlement,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.aws.dynamodb.rows import Row

_DAY_S = 86_400
_FREE = "(attribute_not_exists(#lease_until) OR #lease_until <= :now)"


class DynamoDBTimerStore:
    """Timers in one DynamoDB table. Thread-safe."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        *,
        retention_days: float = 7.0,
        rate: Rate | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._items = Items(client, table, sleep)
        self._blocks = Blocks(self._items, clock)
        self._counter = Counter(self._items, clock, rate)
        self._ids = IdLeases(self._counter.lease, clock, self._counter.largest_lease)
        self._retention_s = int(retention_days * _DAY_S)
        self._identity: str | None = None

    def identity(self) -> str:
        """Return the random name this store was born with."""
        if self._identity is None:
            row = self._items.read(rows.store_key()) or self._be_born()
            self._identity = row["identity"]["S"]
        return self._identity

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        """Give ``new`` an id, arm it, and store it."""
        timer = Timer.first(new, self._ids.next(new.tenant))
        if not arm(timer):
            timer = replace(timer, armed=False)
        row = rows.new_row(timer)
        try:
            self._items.insert(row)
        except ConditionFailed as failure:
            if failure.row is None or not rows.same_timer(failure.row, row):
                raise Unavailable(f"The id {timer.id} is taken already.") from failure
        return timer

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        row = self._items.read(rows.timer_key(tenant, timer_id))
        if row is None:
            raise _not_found(timer_id)
        return rows.timer_of(row)

    def list(self, tenant: str, *, before: int | None, status: Status | None, limit: int) -> Page:
        """Return timers with an id below ``before``, highest first, at most ``limit``.

        Failed timers come from their index, which may be a moment behind.
        """
        if status is Status.FAILED:
            found: Sequence[Row]
            found, before = self._failed(tenant, before, limit)
        else:
            found, before = self._blocks.below(tenant, before, status, limit)
        return Page(timers=[rows.timer_of(row) for row in found], before=before)

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove one timer. Raises ``TimerNotFound`` and ``TimerInFlight``.

        A repeated delete whose first try applied finds nothing: the timer is gone either way.
        """
        try:
            row = self._items.delete(
                rows.timer_key(tenant, timer_id),
                f"attribute_exists(#pk) AND {_FREE}",
                {":now": number(now)},
            )
        except ConditionFailed as failure:
            raise _not_free(timer_id, failure.row) from failure
        return rows.timer_of(row)

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``, highest first.

        After a purge that was cut off, one that starts at the top soon goes on where that ended.
        """
        return self._blocks.purge(tenant, before, limit)

    def due(self, now: int, limit: int) -> Sequence[Wakeup]:
        """Return timers whose next attempt is due, longest due first; some may be held.

        A claim writes nothing to the index, so what is held looks like any other there.
        """
        found = (wakeup for shard in rows.due_shards() for wakeup in self._due(shard, now, limit))
        return heapq.nsmallest(limit, found, key=lambda wakeup: (wakeup.at, wakeup.id))

    def claim(self, claim: Claim) -> Timer | Refused:
        """Take the lease on a due timer and return it as claimed."""
        try:
            row = self._items.update(
                rows.timer_key(claim.wakeup.tenant, claim.wakeup.id),
                "SET #lease_until = :lease_until, #token = :token",
                {
                    ":lease_until": number(claim.lease_until),
                    ":token": text(claim.token),
                    ":version": number(claim.wakeup.version),
                    ":now": number(claim.now),
                },
                condition=f"#version = :version AND #next_attempt_at <= :now AND {_FREE}",
            )
        except ConditionFailed as failure:
            return _refused(claim, failure.row)
        return rows.timer_of(row)

    def settle(self, settlement: Settlement) -> bool:
        """Record what an attempt led to; False if the token no longer holds the timer.

        A settle repeated with the token of the last one changes nothing and is True.
        """
        change, values = rows.settling(settlement, self._retention_s)
        try:
            self._items.update(
                rows.timer_key(settlement.tenant, settlement.id),
                change,
                {**values, ":token": text(settlement.token)},
                condition="#token = :token AND attribute_exists(#lease_until)",
            )
        except ConditionFailed as failure:
            return rows.receipt_of(failure.row, settlement.token)
        return True

    def reschedule(self, change: Reschedule) -> Timer:
        """Make a timer outstanding at another time, under a new version.

        A repeated change whose first try applied finds the timer as it wants it.
        """
        update, condition, values = rows.rescheduling(change)
        try:
            row = self._items.update(
                rows.timer_key(change.tenant, change.id), update, values, condition=condition
            )
        except ConditionFailed as failure:
            return _rescheduled_before(change, failure)
        return rows.timer_of(row)

    def check(self) -> None:
        """Return if the table can be read; raise ``Unavailable`` otherwise."""
        self._items.read(rows.store_key())

    def _be_born(self) -> Row:
        """Name the store, unless another process has just done so."""
        row = rows.store_row(secrets.token_hex(8))
        try:
            self._items.insert(row)
        except ConditionFailed as failure:
            return failure.row or row
        return row

    def _failed(
        self, tenant: str, before: int | None, limit: int
    ) -> tuple[Sequence[Row], int | None]:
        """Return one page of the failed index, and the ``before`` that goes on."""
        parts = [
            self._failed_part(partition, before, limit + 1)
            for partition in rows.failed_partitions(tenant)
        ]
        found = list(heapq.merge(*parts, key=_id_of, reverse=True))[: limit + 1]
        return found[:limit], _id_of(found[limit - 1]) if len(found) > limit else None

    def _failed_part(self, partition: str, before: int | None, limit: int) -> Sequence[Row]:
        """Return the first rows of one partition of the failed index, highest id first."""
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

    def _due(self, shard: str, now: int, limit: int) -> Iterator[Wakeup]:
        """Yield what is due in one partition of the due index, longest due first."""
        after: Row | None = None
        while limit > 0:
            found, after = self._items.query(
                "#due_shard = :shard AND #next_attempt_at <= :now",
                {":shard": text(shard), ":now": number(now)},
                index=rows.DUE_INDEX,
                limit=limit,
                after=after,
            )
            yield from map(rows.wakeup_of, found)
            limit -= len(found)
            if after is None:
                return


def _id_of(row: Row) -> int:
    return int(row["id"]["N"])


def _refused(claim: Claim, row: Row | None) -> Timer | Refused:
    """Say why a claim failed, from the row as it is."""
    if row is None:
        return Refused(refusal=Refusal.VOID)
    timer = rows.timer_of(row)
    if timer.token == claim.token:
        return timer
    if timer.next_attempt_at is None or timer.version != claim.wakeup.version:
        return Refused(refusal=Refusal.VOID)
    again_at = max(timer.next_attempt_at, timer.lease_until or 0)
    return Refused(refusal=Refusal.LATER, again_at=again_at)


def _rescheduled_before(change: Reschedule, failure: ConditionFailed) -> Timer:
    """Return the timer if this very change was written before; raise why it cannot be."""
    if failure.row is None:
        raise _not_found(change.id) from failure
    timer = rows.timer_of(failure.row)
    if timer.leased(change.now):
        raise _in_flight(change.id) from failure
    wanted = (change.version + 1, change.at, change.due_at, 0)
    if (timer.version, timer.next_attempt_at, timer.due_at, timer.attempts) != wanted:
        raise TimerChanged(f"Timer {change.id} has just changed; look at it again.") from failure
    return timer


def _not_found(timer_id: int) -> TimerNotFound:
    return TimerNotFound(f"There is no timer {timer_id}.")


def _not_free(timer_id: int, row: Row | None) -> TimerNotFound | TimerInFlight:
    if row is None:
        return _not_found(timer_id)
    return _in_flight(timer_id)


def _in_flight(timer_id: int) -> TimerInFlight:
    return TimerInFlight(f"The webhook of timer {timer_id} is on the wire right now.")
