"""The boto3 clients of SQS and EventBridge Scheduler, as far as ``AwsWakeups`` uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import EndpointConnectionError

from tests.simulation.fault_injector import FaultInjector
from tests.simulation.simulated_aws import ScheduleExists, ScheduleNotFound, SimulatedAws


def unreachable() -> Exception:
    """Return the error of a client that got no response."""
    return EndpointConnectionError(endpoint_url="https://aws.example")


class QueueClient:
    """The client of SQS."""

    meta = SimpleNamespace(region_name="eu-central-1", partition="aws")

    def __init__(self, aws: SimulatedAws, faults: FaultInjector) -> None:
        self._aws = aws
        self._faults = faults

    def get_queue_url(self, QueueName: str) -> Mapping[str, str]:  # noqa: N803
        return {"QueueUrl": f"https://sqs.example/123456789012/{QueueName}"}

    def send_message(self, QueueUrl: str, MessageBody: str, DelaySeconds: int) -> None:  # noqa: N803
        self._faults.call(
            "sqs.send_message",
            lambda: self._aws.send(MessageBody, DelaySeconds),
            MessageBody,
            DelaySeconds,
            lost=unreachable,
            repeats=True,
        )

    def send_message_batch(
        self,
        QueueUrl: str,  # noqa: N803
        Entries: Sequence[Mapping[str, Any]],  # noqa: N803
    ) -> Mapping[str, Any]:
        def send() -> list[dict[str, str]]:
            taken = []
            for entry in Entries:
                if not self._faults.occurs(self._aws.entry_refused, "batch entry refused"):
                    self._aws.send(entry["MessageBody"], entry["DelaySeconds"])
                    taken.append({"Id": entry["Id"]})
            return taken

        taken = self._faults.call(
            "sqs.send_message_batch", send, len(Entries), lost=unreachable, repeats=True
        )
        return {"Successful": taken}

    def get_queue_attributes(self, **_: object) -> Mapping[str, Any]:
        backlog = self._faults.call("sqs.get_queue_attributes", self._aws.backlog, lost=unreachable)
        return {"Attributes": {"ApproximateNumberOfMessages": str(backlog)}}


class ScheduleClient:
    """The client of EventBridge Scheduler."""

    exceptions = SimpleNamespace(
        ResourceNotFoundException=ScheduleNotFound, ConflictException=ScheduleExists
    )

    def __init__(self, aws: SimulatedAws, faults: FaultInjector) -> None:
        self._aws = aws
        self._faults = faults

    def create_schedule(self, **wanted: Any) -> None:
        when = wanted["ScheduleExpression"].removeprefix("at(").removesuffix(")")
        at = datetime.fromisoformat(when + "+00:00").timestamp() * 1000
        name, body = wanted["Name"], wanted["Target"]["Input"]
        self._faults.call(
            "scheduler.create_schedule",
            lambda: self._aws.schedule(name, at, body),
            name,
            at,
            lost=unreachable,
            repeats=True,
        )

    def delete_schedule(self, Name: str, GroupName: str) -> None:  # noqa: N803
        self._faults.call(
            "scheduler.delete_schedule",
            lambda: self._aws.unschedule(Name),
            Name,
            lost=unreachable,
            repeats=True,
        )
