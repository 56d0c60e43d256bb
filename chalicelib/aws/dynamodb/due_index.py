"""The due index as a sweep uses it: read one shard at a time, and mark the timers woken."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import ConditionFailed, unavailable_on_error
from chalicelib.aws.dynamodb.rows import ARMED, UNARMED, number, text
from chalicelib.domain.timer import Wakeup
from chalicelib.service.ports import SweepCutoffs

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import QueryInputTypeDef

PAGE = 100

_DUE = "#due_shard = :shard AND #next_attempt_at <= :at"
_UNWOKEN = "attribute_not_exists(#woken_at) OR #woken_at < :woken"


class DynamoDBDueIndex:
    """The sparse index of outstanding timers. Thread-safe."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table
        self._calling = functools.partial(unavailable_on_error, table)

    def shards(self) -> Sequence[int]:
        """Return the shards, which can be read side by side."""
        return range(rows.SHARDS)

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        """Yield the wake-ups of one shard within ``cutoffs``, a page at a time, earliest first.

        A page may be empty: marked timers are filtered after they were read.
        """
        yield from self._pages(f"{ARMED}{shard}", cutoffs.overdue, cutoffs.woken)
        yield from self._pages(f"{UNARMED}{shard}", cutoffs.upcoming, cutoffs.woken)

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> bool:
        """Note that ``wakeup`` was sent; return False if it is void, or was noted already."""
        update = "SET #woken_at = :now"
        condition = f"#version = :version AND attribute_exists(#due_shard) AND ({_UNWOKEN})"
        try:
            with self._calling():
                self._client.update_item(
                    TableName=self._table,
                    Key=rows.timer_key(wakeup.tenant, wakeup.id),
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeNames=rows.names(update, condition),
                    ExpressionAttributeValues={
                        ":now": number(now),
                        ":version": number(wakeup.version),
                        ":woken": number(cutoffs.woken),
                    },
                )
        except ConditionFailed as failure:
            # A repeated mark whose first try applied finds itself.
            return failure.row is not None and failure.row.get("woken_at") == number(now)
        return True

    def _pages(self, part: str, at: int, woken: int) -> Iterator[Sequence[Wakeup]]:
        request: QueryInputTypeDef = {
            "TableName": self._table,
            "IndexName": rows.DUE_INDEX,
            "KeyConditionExpression": _DUE,
            "FilterExpression": _UNWOKEN,
            "ExpressionAttributeNames": rows.names(_DUE, _UNWOKEN),
            "ExpressionAttributeValues": {
                ":shard": text(part),
                ":at": number(at),
                ":woken": number(woken),
            },
            "Limit": PAGE,
        }
        while True:
            with self._calling():
                response = self._client.query(**request)
            yield [rows.wakeup_of(row) for row in response["Items"]]
            if "LastEvaluatedKey" not in response:
                return
            request["ExclusiveStartKey"] = response["LastEvaluatedKey"]
