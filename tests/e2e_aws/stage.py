"""One stage on an emulator: its queues, schedules and functions."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import boto3

from chalicelib.aws.names import Names
from local.emulator.environment import CLIENT_DEFAULTS

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient


class Stage:
    """The queues, the schedules and the functions of a stage."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.name = name
        self.names = Names(name)
        self.session = boto3.Session(
            aws_access_key_id=CLIENT_DEFAULTS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CLIENT_DEFAULTS["AWS_SECRET_ACCESS_KEY"],
            region_name=CLIENT_DEFAULTS["AWS_DEFAULT_REGION"],
        )

    @functools.cached_property
    def sqs(self) -> SQSClient:
        return self.session.client("sqs", endpoint_url=self.address)

    @functools.cached_property
    def scheduler(self) -> EventBridgeSchedulerClient:
        return self.session.client("scheduler", endpoint_url=self.address)

    @functools.cached_property
    def lambdas(self) -> LambdaClient:
        return self.session.client("lambda", endpoint_url=self.address)

    def invoke(self, function: str, event: object) -> tuple[Any, str | None]:
        """Invoke a function of the stage; return what it returns, and its error if it had one."""
        response = self.lambdas.invoke(
            FunctionName=f"{self.names.stack}-{function}", Payload=json.dumps(event)
        )
        return json.loads(response["Payload"].read()), response.get("FunctionError")

    @property
    def queue_url(self) -> str:
        return self.sqs.get_queue_url(QueueName=self.names.queue)["QueueUrl"]

    def lose_messages(self) -> None:
        """Lose every wake-up on the queue."""
        self.sqs.purge_queue(QueueUrl=self.queue_url)

    def put(self, *bodies: str) -> None:
        """Put messages on the queue, one by one."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body)

    def messages(self) -> int:
        """Return how many messages the queue holds, in whatever state."""
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.queue_url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesDelayed",
                "ApproximateNumberOfMessagesNotVisible",
            ],
        )["Attributes"]
        return sum(int(count) for count in attributes.values())

    def schedules(self) -> int:
        """Return how many schedules there are."""
        group = self.names.schedule_group
        return len(self.scheduler.list_schedules(GroupName=group)["Schedules"])
