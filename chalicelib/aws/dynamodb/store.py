"""The rows of timers in DynamoDB: one method, one or two calls.

A delivered timer costs five write units and no read: the put (row and due index), the claim
(row), the settle (row and due index). A failed conditional write returns the row as it is, so
explaining the failure needs no read either.

The client repeats a write whose answer was lost. So every write here recognises the case that its
own first try has applied.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.counter import Counter
from chalicelib.aws.dynamodb.failed_index import FailedIndex
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.id_blocks import IdBlocks
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.partitions import OPEN_IDS, PARTITIONS_PER_STEP, Partitions
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.domain.claim import (
    Claim,
    Claimed,
    ClaimResult,
    Reschedule,
    Settlement,
    explain_refusal,
)
from chalicelib.domain.errors import TimerChanged, TimerInFlight, TimerNotFound, Unavailable
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import Status, Timer
from chalicelib.service.ports import Clock, Page

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
        partitions_per_step: int = PARTITIONS_PER_STEP,
        open_ids: int = OPEN_IDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``rate`` limits the creates of each tenant; for the rest see ``Partitions``."""
        self._items = Items(client, table, sleep)
        self._partitions = Partitions(
            self._items, clock, per_step=partitions_per_step, open_ids=open_ids
        )
        self._failed = FailedIndex(self._items)
        counter = Counter(self._items, clock, rate)
        self._ids = IdBlocks(counter.reserve, clock, counter.max_block)
        self._retention_s = int(retention_days * _DAY_S)
        self._identity: str | None = None

    def identity(self) -> str:
        """Return the random name that this store was given when it was first used."""
        if self._identity is None:
            row = self._items.read(rows.store_key()) or self._name_store()
            self._identity = row["identity"]["S"]
        return self._identity

    def next_id(self, tenant: str) -> int:
        """Return an id that was never given before. Raises ``RateLimited``."""
        return self._ids.next(tenant)

    def put(self, timer: Timer, *, armed: bool) -> None:
        """Store a new timer; ``armed`` tells the sweeper whether its wake-up is registered."""
        row = rows.new_row(timer, armed=armed)
        try:
            self._items.insert(row)
        except ConditionFailed as failure:
            if failure.row is None or not rows.same_timer(failure.row, row):
                raise Unavailable(f"The id {timer.id} is taken already.") from failure

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
            found, before = self._failed.below(tenant, before, limit)
        else:
            found, before = self._partitions.below(tenant, before, status, limit)
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
            if failure.row is None:
                raise _not_found(timer_id) from failure
            raise _in_flight(timer_id) from failure
        return rows.timer_of(row)

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``, highest first.

        A purge that was cut off is remembered: one that starts at the top soon after continues
        where it ended.
        """
        return self._partitions.purge(tenant, before, limit)

    def claim(self, claim: Claim) -> ClaimResult:
        """Take the lease on a due timer of the wake-up's version."""
        try:
            row = self._items.update(
                rows.timer_key(claim.wakeup.tenant, claim.wakeup.id),
                "SET #lease_until = :lease_until, #token = :token",
                {
                    ":lease_until": number(claim.lease.until),
                    ":token": text(claim.lease.token),
                    ":version": number(claim.wakeup.version),
                    ":now": number(claim.now),
                },
                condition=f"#version = :version AND #next_attempt_at <= :now AND {_FREE}",
            )
        except ConditionFailed as failure:
            found = None if failure.row is None else rows.timer_of(failure.row)
            return explain_refusal(claim, found)
        return Claimed(rows.timer_of(row), claim.lease)

    def settle(self, settlement: Settlement, *, armed: bool) -> bool:
        """Record the outcome of an attempt; return False if the token no longer holds the timer.

        ``armed`` tells the sweeper whether the wake-up of the retry is registered. A settlement
        repeated with the token of the last one has no effect and returns True.
        """
        change, values = rows.settling(settlement, self._retention_s, armed=armed)
        try:
            self._items.update(
                rows.timer_key(settlement.tenant, settlement.id),
                change,
                {**values, ":token": text(settlement.token)},
                condition="#token = :token AND attribute_exists(#lease_until)",
            )
        except ConditionFailed as failure:
            return rows.was_settled_by(failure.row, settlement.token)
        return True

    def reschedule(self, change: Reschedule, *, armed: bool) -> Timer:
        """Make a timer outstanding at another time, under the next version.

        Raises as ``TimerStore.reschedule`` does. A repeated change whose first try applied finds
        the timer as it wants it.
        """
        update, condition, values = rows.rescheduling(change, armed=armed)
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

    def _name_store(self) -> Row:
        """Name the store, unless another process has just done so; return the item."""
        row = rows.store_row(secrets.token_hex(8))
        try:
            self._items.insert(row)
        except ConditionFailed as failure:
            return failure.row or row
        return row


def _rescheduled_before(change: Reschedule, failure: ConditionFailed) -> Timer:
    """Return the timer if this very change has been written before; raise why it cannot be."""
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


def _in_flight(timer_id: int) -> TimerInFlight:
    return TimerInFlight(f"The webhook of timer {timer_id} is on the wire right now.")
