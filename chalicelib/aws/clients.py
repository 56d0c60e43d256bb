"""The boto3 clients of a process. Each is made when it is first used: making it is slow."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=50,
)
"""Three tries of at most 4 s each, so a call ends well within the timeout of any function."""

ONCE = CONFIG.merge(Config(read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1}))
"""One try of at most 3 s, for calls that need not succeed.

A delivery waits for the secrets before it starts. A create waits for its schedule: a throttled
CreateSchedule would take 2 s in three tries, and without a schedule the sweeper wakes the timer.
"""


class Clients:
    """Clients for the account and region of this process. Clients are thread-safe."""

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """The DynamoDB client."""
        return boto3.client("dynamodb", config=CONFIG)

    @cached_property
    def sqs(self) -> SQSClient:
        """The SQS client."""
        return boto3.client("sqs", config=CONFIG)

    @cached_property
    def scheduler(self) -> EventBridgeSchedulerClient:
        """The EventBridge Scheduler client."""
        return boto3.client("scheduler", config=ONCE)

    @cached_property
    def ssm(self) -> SSMClient:
        """The SSM client."""
        return boto3.client("ssm", config=ONCE)
