"""The timer store on DynamoDB. Each method is one conditional write, or a few reads.

A delivered timer costs five write units and no read: the put (row and due index), the claim
(row), the settle (row and due index). What a failed write needs to know of the row comes back
with the failure.

The client repeats a write whose answer was lost, so every write knows its own first try again.
"""

from __future__ import annotations

import functools
import heapq
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chalicelib.aws import rows
from chalicelib.aws.failures import ConditionFailed, unavailable_on_error
from chalicelib.aws.ids import IdLeases
from chalicelib.aws.rows import number, text
from chalicelib.errors import TimerInFlight, TimerNotFound, Unavailable
from chalicelib.ports import Arm, Claim, Clock, Page, Refusal, Refused, Settlement
from chalicelib.timer import NewTimer, Status, Timer, Wakeup

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.literals import ReturnValueType
    from mypy_boto3_dynamodb.type_defs import QueryInputTypeDef, WriteRequestTypeDef

    from chalicelib.aws.rows import Row

BLOCKS_PER_STEP = 32
"""Partitions that one step of a list or a purge looks into: over gaps, it ends with nothing."""

BATCH = 25
"""Items per BatchWriteItem (AWS limit)."""

BATCH_TRIES = 6
BATCH_PAUSE_S = 0.05

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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._table = table
        self._retention_s = int(retention_days * _DAY_S)
        self._sleep = sleep
        self._ids = IdLeases(self._lease_ids, clock)
        self._calling = functools.partial(unavailable_on_error, table)
        self._identity: str | None = None

    def identity(self) -> str:
        """Return the random name this store was born with."""
        if self._identity is None:
            self._identity = self._read_identity() or self._be_born()
        return self._identity

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        """Give ``new`` an id, arm it, and store it."""
        timer = Timer.first(new, self._ids.next(new.tenant))
        if not arm(timer):
            timer = replace(timer, armed=False)
        row = rows.new_row(timer)
        try:
            self._put(row)
        except ConditionFailed as failure:
            if failure.row is None or not rows.same_timer(failure.row, row):
                raise Unavailable(
                    f"The id {timer.id} is taken: the id counter was put back."
                ) from (failure)
        return timer

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        row = self._read(rows.timer_key(tenant, timer_id))
        if row is None:
            raise _not_found(timer_id)
        return rows.timer_of(row)

    def list(self, tenant: str, *, before: int | None, status: Status | None, limit: int) -> Page:
        """Return timers with an id below ``before``, highest first, at most ``limit``.

        Failed timers come from their index, which may be a moment behind.
        """
        if status is Status.FAILED:
            return self._list_failed(tenant, before, limit)
        top = self._last_id(tenant) + 1
        below = top if before is None else min(before, top)
        found: list[Timer] = []
        for _ in range(BLOCKS_PER_STEP):
            if below <= 1 or len(found) >= limit:
                break
            part, below = self._block(tenant, below, status, limit - len(found))
            found += map(rows.timer_of, part)
        return Page(timers=found, before=below if below > 1 else None)

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove one timer. Raises ``TimerNotFound`` and ``TimerInFlight``.

        A repeated delete whose first try applied finds nothing: the timer is gone either way.
        """
        condition = f"attribute_exists(#pk) AND {_FREE}"
        try:
            with self._calling():
                response = self._client.delete_item(
                    TableName=self._table,
                    Key=rows.timer_key(tenant, timer_id),
                    ConditionExpression=condition,
                    ExpressionAttributeNames=rows.names(condition),
                    ExpressionAttributeValues={":now": number(now)},
                    ReturnValues="ALL_OLD",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ConditionFailed as failure:
            raise _not_free(timer_id, failure.row) from failure
        return rows.timer_of(response["Attributes"])

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``, highest first."""
        below = self._last_id(tenant) + 1 if before is None else before
        keys: list[Row] = []
        for _ in range(BLOCKS_PER_STEP):
            if below <= 1 or len(keys) >= limit:
                break
            part, below = self._block(tenant, below, None, limit - len(keys), keys_only=True)
            keys += part
        for start in range(0, len(keys), BATCH):
            self._delete(keys[start : start + BATCH])
        return below if below > 1 else None

    def due(self, now: int, limit: int) -> Sequence[Wakeup]:
        """Return timers whose next attempt is due, longest due first; some may be held.

        A claim writes nothing to the index, so what is held looks like any other there.
        """
        found = (wakeup for shard in rows.due_shards() for wakeup in self._due(shard, now, limit))
        return heapq.nsmallest(limit, found, key=lambda wakeup: (wakeup.at, wakeup.id))

    def claim(self, claim: Claim) -> Timer | Refused:
        """Take the lease on a due timer and return it as claimed."""
        try:
            row = self._update(
                rows.timer_key(claim.wakeup.tenant, claim.wakeup.id),
                "SET #lease_until = :lease_until, #token = :token",
                f"#version = :version AND #next_attempt_at <= :now AND {_FREE}",
                {
                    ":lease_until": number(claim.lease_until),
                    ":token": text(claim.token),
                    ":version": number(claim.wakeup.version),
                    ":now": number(claim.now),
                },
                returns="ALL_NEW",
            )
        except ConditionFailed as failure:
            return _refused(claim, failure.row)
        return rows.timer_of(row)

    def settle(self, settlement: Settlement) -> bool:
        """Record what an attempt led to; False if the token no longer holds the timer.

        A settle repeated with the token of the last one changes nothing and is True.
        """
        update, values = self._settling(settlement)
        try:
            self._update(
                rows.timer_key(settlement.tenant, settlement.id),
                update,
                "#token = :token AND attribute_exists(#lease_until)",
                {**values, ":token": text(settlement.token)},
            )
        except ConditionFailed as failure:
            return rows.holds(failure.row, settlement.token)
        return True

    def reschedule(self, tenant: str, timer_id: int, *, at: int, now: int) -> Timer:
        """Make a timer outstanding at ``at``, under a new version. It is not armed yet."""
        try:
            row = self._update(
                rows.timer_key(tenant, timer_id),
                "SET #status = :pending, #next_attempt_at = :at, #due_shard = :shard "
                "REMOVE #lease_until, #token, #woken_at, #settled_at, #expires_at, #failed_of "
                "ADD #version :one",
                f"attribute_exists(#pk) AND {_FREE}",
                {
                    ":pending": text(Status.PENDING.value),
                    ":at": number(at),
                    ":shard": text(rows.due_shard(tenant, timer_id, armed=False)),
                    ":one": number(1),
                    ":now": number(now),
                },
                returns="ALL_NEW",
            )
        except ConditionFailed as failure:
            raise _not_free(timer_id, failure.row) from failure
        return rows.timer_of(row)

    def check(self) -> None:
        """Return if the table can be read; raise ``Unavailable`` otherwise."""
        self._read(rows.store_key())

    def _settling(self, settlement: Settlement) -> tuple[str, dict[str, AttributeValueTypeDef]]:
        """Return the update that records a settlement, and its values."""
        values = {":status": text(settlement.status.value), ":one": number(1)}
        if settlement.next_attempt_at is not None:
            shard = rows.due_shard(settlement.tenant, settlement.id, armed=settlement.armed)
            values |= {":at": number(settlement.next_attempt_at), ":shard": text(shard)}
            return (
                "SET #status = :status, #next_attempt_at = :at, #due_shard = :shard "
                "REMOVE #lease_until, #woken_at ADD #attempts :one, #version :one"
            ), values
        expires_at = settlement.now // 1000 + self._retention_s
        values |= {":now": number(settlement.now), ":expires_at": number(expires_at)}
        failed = ""
        if settlement.status is Status.FAILED:
            failed = ", #failed_of = :tenant"
            values[":tenant"] = text(settlement.tenant)
        return (
            f"SET #status = :status, #settled_at = :now, #expires_at = :expires_at{failed} "
            "REMOVE #lease_until, #next_attempt_at, #due_shard, #woken_at ADD #attempts :one"
        ), values

    def _read_identity(self) -> str | None:
        row = self._read(rows.store_key())
        return None if row is None else row["identity"]["S"]

    def _be_born(self) -> str:
        """Name the store, unless another process has just done so."""
        identity = secrets.token_hex(8)
        try:
            self._put(
                {**rows.store_key(), "f": number(rows.FORMAT), "identity": text(identity)},
            )
        except ConditionFailed as failure:
            assert failure.row is not None
            return failure.row["identity"]["S"]
        return identity

    def _lease_ids(self, tenant: str, count: int) -> int:
        """Raise a tenant's counter and return where it stands. A repeated raise leaves a gap."""
        row = self._update(
            rows.counter_key(tenant),
            "SET #f = :format ADD #last_id :count",
            None,
            {":format": number(rows.FORMAT), ":count": number(count)},
            returns="ALL_NEW",
        )
        return int(row["last_id"]["N"])

    def _last_id(self, tenant: str) -> int:
        row = self._read(rows.counter_key(tenant))
        return 0 if row is None else int(row["last_id"]["N"])

    def _list_failed(self, tenant: str, before: int | None, limit: int) -> Page:
        condition = "#failed_of = :tenant"
        values = {":tenant": text(tenant)}
        if before is not None:
            condition += " AND #id < :before"
            values[":before"] = number(before)
        with self._calling():
            response = self._client.query(
                TableName=self._table,
                IndexName=rows.FAILED_INDEX,
                KeyConditionExpression=condition,
                ExpressionAttributeNames=rows.names(condition),
                ExpressionAttributeValues=values,
                ScanIndexForward=False,
                Limit=limit,
            )
        last = response.get("LastEvaluatedKey")
        return Page(
            timers=[rows.timer_of(row) for row in response["Items"]],
            before=None if last is None else int(last["id"]["N"]),
        )

    def _block(
        self, tenant: str, below: int, status: Status | None, limit: int, *, keys_only: bool = False
    ) -> tuple[list[Row], int]:
        """Return the rows under ``below`` of one partition, highest first, and where to go on."""
        condition = "#pk = :pk AND #id < :below"
        wanted = None if status is None else "#status = :status"
        projection = "#pk, #id" if keys_only else None
        request: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": rows.names(condition, wanted, projection),
            "ExpressionAttributeValues": {
                ":pk": text(rows.partition(tenant, below - 1)),
                ":below": number(below),
                **({} if status is None else {":status": text(status.value)}),
            },
            "ScanIndexForward": False,
            "ConsistentRead": True,
        }
        if wanted is None:
            request["Limit"] = limit
        else:
            request["FilterExpression"] = wanted
        if projection is not None:
            request["ProjectionExpression"] = projection
        with self._calling():
            response = self._client.query(**request)
        found = response["Items"]
        if len(found) > limit:
            return found[:limit], int(found[limit - 1]["id"]["N"])
        last = response.get("LastEvaluatedKey")
        return found, rows.first_of_block(below - 1) if last is None else int(last["id"]["N"])

    def _due(self, shard: str, now: int, limit: int) -> Iterator[Wakeup]:
        """Yield what is due in one partition of the due index, longest due first."""
        condition = "#due_shard = :shard AND #next_attempt_at <= :now"
        request: QueryInputTypeDef = {
            "TableName": self._table,
            "IndexName": rows.DUE_INDEX,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": rows.names(condition),
            "ExpressionAttributeValues": {":shard": text(shard), ":now": number(now)},
        }
        while limit > 0:
            request["Limit"] = limit
            with self._calling():
                response = self._client.query(**request)
            yield from map(rows.wakeup_of, response["Items"])
            limit -= len(response["Items"])
            if "LastEvaluatedKey" not in response:
                return
            request["ExclusiveStartKey"] = response["LastEvaluatedKey"]

    def _read(self, key: Row) -> Row | None:
        with self._calling():
            response = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return response.get("Item")

    def _put(self, row: Row) -> None:
        """Write a new item. Raises ``ConditionFailed`` if its key is taken."""
        condition = "attribute_not_exists(#pk)"
        with self._calling():
            self._client.put_item(
                TableName=self._table,
                Item=row,
                ConditionExpression=condition,
                ExpressionAttributeNames=rows.names(condition),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )

    def _update(
        self,
        key: Row,
        update: str,
        condition: str | None,
        values: Row,
        *,
        returns: ReturnValueType = "NONE",
    ) -> Row:
        """Change one item. Raises ``ConditionFailed``."""
        request: UpdateItemInputTypeDef = {
            "TableName": self._table,
            "Key": key,
            "UpdateExpression": update,
            "ExpressionAttributeNames": rows.names(update, condition),
            "ExpressionAttributeValues": values,
            "ReturnValues": returns,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if condition is not None:
            request["ConditionExpression"] = condition
        with self._calling():
            response = self._client.update_item(**request)
        return response.get("Attributes", {})

    def _delete(self, keys: Sequence[Row]) -> None:
        """Remove up to ``BATCH`` items. Raises ``Unavailable`` if some stay unprocessed."""
        requests: Sequence[WriteRequestTypeDef] = [{"DeleteRequest": {"Key": key}} for key in keys]
        for attempt in range(BATCH_TRIES):
            if attempt:
                self._sleep(BATCH_PAUSE_S * 2**attempt)
            with self._calling():
                response = self._client.batch_write_item(RequestItems={self._table: requests})
            requests = response["UnprocessedItems"].get(self._table, [])
            if not requests:
                return
        raise Unavailable("DynamoDB is busy: not all timers are removed yet.")


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


def _not_found(timer_id: int) -> TimerNotFound:
    return TimerNotFound(f"There is no timer {timer_id}.")


def _not_free(timer_id: int, row: Row | None) -> TimerNotFound | TimerInFlight:
    if row is None:
        return _not_found(timer_id)
    return TimerInFlight(f"The webhook of timer {timer_id} is on the wire right now.")
