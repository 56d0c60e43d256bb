"""One DynamoDB table: conditional writes, reads, and queries page by page.

Every method raises ``Unavailable`` when the table cannot be reached or refuses the load.
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
        QueryInputTypeDef,
        UpdateItemInputTypeDef,
        WriteRequestUnionTypeDef,
    )

    from chalicelib.aws.dynamodb.rows import Row

BATCH = 25
"""Items per BatchWriteItem (AWS limit)."""

BATCH_TRIES = 6
BATCH_PAUSE_S = 0.05
"""The pause before unprocessed items are tried again; each next pause is twice as long."""


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

    def insert(self, row: Row) -> None:
        """Write a new item. Raises ``ConditionFailed`` with the item that has its key."""
        condition = "attribute_not_exists(#pk)"
        with self._calling():
            self._client.put_item(
                TableName=self._table,
                Item=row,
                ConditionExpression=condition,
                ExpressionAttributeNames=rows.names(condition),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )

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
        with self._calling():
            return self._client.update_item(**request)["Attributes"]

    def delete(self, key: Row, condition: str, values: Row) -> Row:
        """Remove one item and return it as it was. Raises ``ConditionFailed``."""
        with self._calling():
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
        """Remove items without a condition. Some may be gone when this raises."""
        for start in range(0, len(keys), BATCH):
            self._delete_batch(keys[start : start + BATCH])

    def query(
        self,
        condition: str,
        values: Row,
        *,
        index: str | None = None,
        wanted: str | None = None,
        only: str | None = None,
        highest_first: bool = False,
        limit: int | None = None,
        after: Row | None = None,
    ) -> tuple[list[Row], Row | None]:
        """Return one page of a query, and the key after which the next page begins.

        ``wanted`` filters the rows read, ``only`` names the attributes to return. The table is
        read consistently; an index may be a moment behind.
        """
        request: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": rows.names(condition, wanted, only),
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not highest_first,
        }
        if index is None:
            request["ConsistentRead"] = True
        else:
            request["IndexName"] = index
        if wanted is not None:
            request["FilterExpression"] = wanted
        if only is not None:
            request["ProjectionExpression"] = only
        if limit is not None:
            request["Limit"] = limit
        if after is not None:
            request["ExclusiveStartKey"] = after
        with self._calling():
            response = self._client.query(**request)
        return response["Items"], response.get("LastEvaluatedKey")

    def _delete_batch(self, keys: Sequence[Row]) -> None:
        undone: Sequence[WriteRequestUnionTypeDef] = [
            {"DeleteRequest": {"Key": key}} for key in keys
        ]
        for attempt in range(BATCH_TRIES):
            if attempt:
                self._sleep(BATCH_PAUSE_S * 2 ** (attempt - 1))
            with self._calling():
                response = self._client.batch_write_item(RequestItems={self._table: undone})
            undone = response["UnprocessedItems"].get(self._table, [])
            if not undone:
                return
        raise Unavailable("DynamoDB is busy: not all timers are removed yet.")
