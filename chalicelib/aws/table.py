"""The table as DynamoDB is to make it: for tests and for emulators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb.rows import DUE_INDEX, FAILED_INDEX

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import CreateTableInputTypeDef

TTL_ATTRIBUTE = "expires_at"


def table_definition(name: str) -> CreateTableInputTypeDef:
    """Return the table ``name``, paid by request, with its two sparse indexes.

    The due index carries nothing that a claim changes, so that a claim writes the row alone.
    """
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "id", "AttributeType": "N"},
            {"AttributeName": "due_shard", "AttributeType": "S"},
            {"AttributeName": "next_attempt_at", "AttributeType": "N"},
            {"AttributeName": "failed_of", "AttributeType": "S"},
        ],
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "id", "KeyType": "RANGE"},
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": DUE_INDEX,
                "KeySchema": [
                    {"AttributeName": "due_shard", "KeyType": "HASH"},
                    {"AttributeName": "next_attempt_at", "KeyType": "RANGE"},
                ],
                "Projection": {
                    "ProjectionType": "INCLUDE",
                    "NonKeyAttributes": ["version", "woken_at"],
                },
            },
            {
                "IndexName": FAILED_INDEX,
                "KeySchema": [
                    {"AttributeName": "failed_of", "KeyType": "HASH"},
                    {"AttributeName": "id", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            },
        ],
    }


def create_table(client: DynamoDBClient, name: str) -> None:
    """Make the table and let it drop old timers by itself; return once it can be used."""
    client.create_table(**table_definition(name))
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    client.update_time_to_live(
        TableName=name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE},
    )
