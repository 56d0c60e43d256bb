"""Failed DynamoDB calls: a condition that did not hold, or a service that cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
)

from chalicelib.domain.errors import Unavailable

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

_NOT_CARRIED_OUT = (
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "AccessDeniedException",
)
"""DynamoDB has refused the request, so nothing was written."""

MAYBE_WRITTEN = "The request may have been carried out."

_PROGRAMMING_ERRORS = ("ValidationException", "SerializationException")
"""Our request is wrong, so another try cannot help. Callers must see the error."""


class ConditionFailed(Exception):
    """A conditional write did not apply.

    ``row`` is the item as it is, None if there is none.
    """

    def __init__(self, row: Row | None) -> None:
        super().__init__("the condition of a write did not hold")
        self.row = row


@contextmanager
def unavailable_on_error(table: str, *, writes: bool = False) -> Iterator[None]:
    """Turn the failures of a DynamoDB call into ``ConditionFailed`` and ``Unavailable``.

    A call that ``writes`` may fail with ``MaybeWritten``, which is an ``Unavailable``. The client
    has already retried, if that could help. So nothing is retried here.
    """
    try:
        yield
    except ClientError as error:
        response: Any = error.response
        code = response["Error"]["Code"]
        if code == "ConditionalCheckFailedException":
            raise ConditionFailed(response.get("Item")) from error
        if code in _PROGRAMMING_ERRORS:
            raise
        if code == "ResourceNotFoundException":
            raise Unavailable(f"There is no table {table} here: `make infra` makes it.") from error
        known = not writes or code in _NOT_CARRIED_OUT
        raise _failed(f"DynamoDB cannot do it now ({code}).", known=known) from error
    except ParamValidationError:
        raise  # a BotoCoreError too, but a mistake of ours
    except BotoCoreError as error:
        # No connection: the request was not sent. Any other error may have hidden the response.
        known = not writes or isinstance(error, ConnectTimeoutError | EndpointConnectionError)
        text = f"DynamoDB cannot be reached ({type(error).__name__})."
        raise _failed(text, known=known) from error


class MaybeWritten(Unavailable):
    """A write whose response was lost: nobody knows whether it was carried out."""


def _failed(text: str, *, known: bool) -> Unavailable:
    return Unavailable(text) if known else MaybeWritten(f"{text} {MAYBE_WRITTEN}")
