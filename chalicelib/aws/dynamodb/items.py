"""One DynamoDB table: conditional writes, reads, and queries page by page.

Every method raises ``Unavailable`` if the table cannot be reached or throttles the call.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import unavailable_on_error
from chalicelib.domain.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        PutItemInputTypeDef,
        QueryInputTypeDef,
        UpdateItemInputTypeDef,
        WriteRequestUnionTypeDef,
    )

    from chalicelib.aws.dynamodb.rows import Row

MAX_BATCH_READ = 100
"""Items per BatchGetItem (AWS limit)."""

MAX_BATCH = 25
"""Items per BatchWriteItem (AWS limit)."""

MAX_BATCH_TRIES = 6
BATCH_PAUSE_S = 0.05
"""Seconds before unprocessed items are tried again. Each further pause is twice as long."""


class Items:
    """The items of one table. Expressions name attributes as ``#attribute``. Thread-safe."""

    def __init__(
        self, client: DynamoDBClient, table: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._table = table
        self._sleep = sleep
        self._calling = functools.partial(unavailable_on_error, table)

    def read(self, key: Row) -> Row | None:
        """Return one item as it is now, None if there is none."""
        with self._calling():
            response = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return response.get("Item")

    def read_all(self, keys: Sequence[Row]) -> list[Row]:
        """Return the items with these primary keys that exist, in no order."""
        found: list[Row] = []
        for start in range(0, len(keys), MAX_BATCH_READ):
            remaining = list(keys[start : start + MAX_BATCH_READ])
            # As with BatchWriteItem: what a throttled call did not read is returned.
            for tries in range(MAX_BATCH_TRIES):
                if tries:
                    self._sleep(BATCH_PAUSE_S * 2 ** (tries - 1))
                with self._calling():
                    response = self._client.batch_get_item(
                        RequestItems={self._table: {"Keys": remaining, "ConsistentRead": True}}
                    )
                found += response["Responses"].get(self._table, [])
                unread = response["UnprocessedKeys"].get(self._table)
                remaining = list(unread["Keys"]) if unread else []
                if not remaining:
                    break
            else:
                raise Unavailable("DynamoDB is busy: not all timers could be read.")
        return found

    def insert(self, row: Row) -> None:
        """Write a new item. Raises ``ConditionFailed`` with the item that has its primary key."""
        # An item has all attributes of its primary key, so one of them is enough.
        self.put(row, "attribute_not_exists(#pk)", {})

    def put(self, row: Row, condition: str, values: Row) -> None:
        """Write an item in the place of the old one. Raises ``ConditionFailed``."""
        request: PutItemInputTypeDef = {
            "TableName": self._table,
            "Item": row,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": rows.names(condition),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if values:
            request["ExpressionAttributeValues"] = values
        with self._calling(writes=True):
            self._client.put_item(**request)

    def update(self, key: Row, change: str, values: Row, *, condition: str | None = None) -> Row:
        """Change one item and return it as changed. Raises ``ConditionFailed``.

        Without a ``condition``, a missing item is created.
        """
        request: UpdateItemInputTypeDef = {
            "TableName": self._table,
            "Key": key,
            "UpdateExpression": change,
            "ExpressionAttributeNames": rows.names(change, condition),
            "ReturnValues": "ALL_NEW",
        }
        if values:
            request["ExpressionAttributeValues"] = values
        if condition is not None:
            request["ConditionExpression"] = condition
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        with self._calling(writes=True):
            return self._client.update_item(**request)["Attributes"]

    def delete(self, key: Row, condition: str, values: Row) -> Row:
        """Remove one item and return it as it was. Raises ``ConditionFailed``."""
        with self._calling(writes=True):
            response = self._client.delete_item(
                TableName=self._table,
                Key=key,
                ConditionExpression=condition,
                ExpressionAttributeNames=rows.names(condition),
                ExpressionAttributeValues=values,
                ReturnValues="ALL_OLD",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        return response["Attributes"]

    def delete_all(self, keys: Sequence[Row]) -> None:
        """Remove items without a condition. When this raises, some of them are removed."""
        for start in range(0, len(keys), MAX_BATCH):
            self._delete_batch(keys[start : start + MAX_BATCH])

    def query(
        self,
        condition: str,
        values: Row,
        *,
        index: str | None = None,
        keep: str | None = None,
        attributes: str | None = None,
        highest_first: bool = False,
        limit: int | None = None,
        after: Row | None = None,
    ) -> tuple[list[Row], Row | None]:
        """Return one page of a query, and the primary key after which the next page begins.

        ``condition`` and ``values`` select the rows. ``keep`` filters these after they were read,
        so they count towards ``limit``. ``attributes`` names the attributes to return, by default
        all. The table is read consistently; an index may be slightly behind it.
        """
        request: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": rows.names(condition, keep, attributes),
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not highest_first,
        }
        if index is None:
            request["ConsistentRead"] = True  # not possible on an index (AWS limit)
        else:
            request["IndexName"] = index
        if keep is not None:
            request["FilterExpression"] = keep
        if attributes is not None:
            request["ProjectionExpression"] = attributes
        if limit is not None:
            request["Limit"] = limit
        if after is not None:
            request["ExclusiveStartKey"] = after
        with self._calling():
            response = self._client.query(**request)
        return response["Items"], response.get("LastEvaluatedKey")

    def _delete_batch(self, keys: Sequence[Row]) -> None:
        remaining: Sequence[WriteRequestUnionTypeDef] = [
            {"DeleteRequest": {"Key": key}} for key in keys
        ]
        # A BatchWriteItem that is throttled in part does not raise, so the client does not retry.
        # It returns the items that it did not process.
        for tries in range(MAX_BATCH_TRIES):
            if tries:
                self._sleep(BATCH_PAUSE_S * 2 ** (tries - 1))
            with self._calling(writes=True):
                response = self._client.batch_write_item(RequestItems={self._table: remaining})
            remaining = response["UnprocessedItems"].get(self._table, [])
            if not remaining:
                return
        raise Unavailable("DynamoDB is busy: not all timers are removed yet.")
