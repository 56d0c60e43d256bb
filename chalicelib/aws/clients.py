"""The boto3 clients, made when first needed and kept: a client costs a cold start dearly."""

from __future__ import annotations

import functools
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
"""Three tries of at most 4 s each: a call ends well within any function's timeout."""

ONCE = CONFIG.merge(Config(read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1}))
"""One try of at most 3 s, for what a delivery waits for before it may take all of its time."""


@functools.lru_cache(maxsize=1)
def dynamodb() -> DynamoDBClient:
    """Return this process's DynamoDB client. Clients are thread-safe."""
    return boto3.client("dynamodb", config=CONFIG)


@functools.lru_cache(maxsize=1)
def sqs() -> SQSClient:
    """Return this process's SQS client."""
    return boto3.client("sqs", config=CONFIG)


@functools.lru_cache(maxsize=1)
def scheduler() -> EventBridgeSchedulerClient:
    """Return this process's EventBridge Scheduler client."""
    return boto3.client("scheduler", config=CONFIG)


@functools.lru_cache(maxsize=1)
def ssm() -> SSMClient:
    """Return this process's SSM client."""
    return boto3.client("ssm", config=ONCE)
