"""What an emulator of AWS lacks at first: the table, the queues and the schedule group.

On AWS a stack makes these; an emulator starts empty, and some forget everything when they stop.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

from chalicelib.aws.names import Names
from chalicelib.aws.table import create_table
from chalicelib.domain.errors import InvalidSettings
from chalicelib.settings import is_aws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What every client of AWS insists on, and no emulator checks."""

_ADDRESS = re.compile(r"https?://[^/\s]+/?")

RECEIVES = 5
"""How often a message may be received in vain before it is a dead letter."""

KEPT_S = 14 * 86_400


def check_address(address: str) -> None:
    """Return if an emulator may answer at ``address``. Raises ``InvalidSettings``."""
    if not address:
        raise InvalidSettings(
            "the aws engine runs on this machine against an emulator only: "
            "set AWS_ENDPOINT_URL (make emulator starts one and prints it)"
        )
    if not _ADDRESS.fullmatch(address):
        raise InvalidSettings(
            f"AWS_ENDPOINT_URL={address}: must be a URL like http://127.0.0.1:4566"
        )
    if is_aws(address):
        raise InvalidSettings(f"AWS_ENDPOINT_URL={address}: this is AWS, not an emulator")


def create_missing(
    dynamodb: DynamoDBClient,
    sqs: SQSClient,
    scheduler: EventBridgeSchedulerClient,
    names: Names,
    *,
    visibility_s: int,
) -> None:
    """Make what is not there yet, and leave what is. Raises what the clients raise.

    The table is the last: the API is healthy as soon as there is one, and then all is there.
    """
    dead_letters = _queue(sqs, names.dead_letters, {"MessageRetentionPeriod": str(KEPT_S)})
    redrive = {"deadLetterTargetArn": dead_letters, "maxReceiveCount": RECEIVES}
    _queue(
        sqs,
        names.queue,
        {
            "VisibilityTimeout": str(visibility_s),
            "MessageRetentionPeriod": str(KEPT_S),
            "RedrivePolicy": json.dumps(redrive),
        },
    )
    with contextlib.suppress(scheduler.exceptions.ConflictException):
        scheduler.create_schedule_group(Name=names.schedule_group)
    _make_table(dynamodb, names.table)


def _make_table(dynamodb: DynamoDBClient, table: str) -> None:
    try:
        dynamodb.describe_table(TableName=table)
    except dynamodb.exceptions.ResourceNotFoundException:
        create_table(dynamodb, table)


def _queue(sqs: SQSClient, name: str, attributes: dict[QueueAttributeNameType, str]) -> str:
    """Return the ARN of a queue, which is made with ``attributes`` if it is not there."""
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
