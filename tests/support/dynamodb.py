"""DynamoDB in this process, by moto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3

from chalicelib.aws.names import Names
from infra.resources import create_table
from tests.support.moto import aws_on_moto

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

STAGE = "test"
TABLE = Names(STAGE).table


class RecordingClient:
    """Passes calls on to a client and remembers them.

    A function in ``around`` under the name of an operation is called instead of the client, with
    the client's method and the request.
    """

    def __init__(self, client: DynamoDBClient) -> None:
        self.client = client
        self.calls: list[str] = []
        self.around: dict[str, Callable[..., Any]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(self.client, name)

        def call(**request: Any) -> Any:
            self.calls.append(name)
            around = self.around.get(name)
            return around(real, request) if around else real(**request)

        return call

    def repeat(self, name: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Lose the response of the next call, so that it is made again, as botocore does."""

        def twice(real: Callable[..., Any], request: Any) -> Any:
            del self.around[name]
            real(**request)
            meanwhile()
            return real(**request)

        self.around[name] = twice


@contextmanager
def dynamodb_on_moto() -> Iterator[DynamoDBClient]:
    """Yield a client of an empty DynamoDB. While it lasts, no other client reaches AWS either."""
    with aws_on_moto():
        yield boto3.client("dynamodb")


@contextmanager
def empty_table(client: DynamoDBClient) -> Iterator[str]:
    """Yield the name of an empty table."""
    create_table(client, STAGE)
    yield TABLE
    client.delete_table(TableName=TABLE)
