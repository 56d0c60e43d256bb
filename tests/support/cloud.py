"""The whole aws engine in this process: AWS by moto, and a clock that only tests move.

Every call to AWS is written down, and may be made to fail. Messages are delayed and hidden by the
tests' clock too.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws
from moto.sqs.models import sqs_backends

from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.aws.message import decode_all
from chalicelib.aws.names import Names
from chalicelib.aws.secrets import SigningSecrets
from chalicelib.aws.wakeups import AwsWakeups
from chalicelib.aws.waking_store import ArmableStore, WakeupRegistry, WakingTimerStore
from chalicelib.domain.timer import MAX_NEAR_S, Timer, Wakeup
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.attempt import DeliveryPolicy
from chalicelib.service.delivery import Delivery, Effects
from chalicelib.service.ports import Meter, Metric, Sender, unmetered
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers
from infra.resources import create_missing
from tests.support.armable import HandArmedStore, is_armed
from tests.support.clock import HandClock
from tests.support.factories import LEASE_MS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

NAMES = Names("test")
RETRY_DELAYS_S = (5.0, 300.0)
VISIBILITY_S = 30
OK = Outcome(status=204)


class AwsCall(NamedTuple):
    """One call to AWS."""

    operation: str
    parameters: dict[str, Any]


class SentCall(NamedTuple):
    """One webhook, and when it was sent by the tests' clock."""

    at: float
    call: Call


class HandSender:
    """A sender that answers as it is told, one answer a call and the last one for ever."""

    def __init__(self, clock: HandClock, *outcomes: Outcome) -> None:
        self._clock = clock
        self._outcomes = list(outcomes or (OK,))
        self._lock = threading.Lock()
        self.sent: list[SentCall] = []
        self.takes_ms = 0.0

    def send(self, call: Call) -> Outcome:
        with self._lock:
            self.sent.append(SentCall(self._clock.now, call))
            self._clock.advance(self.takes_ms)
            return self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]


@dataclass
class Meters:
    """What was counted."""

    values: list[tuple[Metric, float]] = field(default_factory=list)

    def __call__(self, metric: Metric, value: float) -> None:
        self.values.append((metric, value))

    def of(self, metric: Metric) -> list[float]:
        return [value for name, value in self.values if name is metric]


def delivery_of(
    rows: ArmableStore,
    wakeups: WakeupRegistry,
    sender: Sender,
    clock: HandClock,
    meter: Callable[[Metric, float], None] = unmetered,
    *,
    signing_keys: Callable[[], Sequence[bytes]] = tuple,
) -> Delivery:
    """Return a delivery whose sleep moves the clock, and whose tokens are 1, 2, 3."""
    tokens = iter(range(1, 1_000_000))
    return Delivery(
        WakingTimerStore(rows, wakeups, clock, meter),
        wakeups,
        sender,
        DeliveryPolicy(lease_ms=LEASE_MS, retry_delays_s=RETRY_DELAYS_S, signing_keys=signing_keys),
        Effects(
            clock=clock,
            sleep=lambda seconds: clock.advance(seconds * 1000),
            random=lambda: 0.0,
            token=lambda: f"token-{next(tokens)}",
            meter=meter,
        ),
    )


class Cloud:
    """One stage. ``before_call`` sees every call before it is made, and may raise instead."""

    def __init__(self, clock: HandClock, near_s: int = MAX_NEAR_S) -> None:
        self.clock = clock
        self.dynamodb, self.sqs, self.scheduler, self.ssm = _clients()
        create_missing(
            self.dynamodb, self.sqs, self.scheduler, NAMES.stage, visibility_s=VISIBILITY_S
        )
        self.queue_url = self.sqs.get_queue_url(QueueName=NAMES.queue)["QueueUrl"]
        self.calls: list[AwsCall] = []
        self.before_call: Callable[[str], object] = lambda _operation: None
        self.watched = True
        self.near_s = near_s
        self.wakeups = self.another_wakeups()
        for client in (self.dynamodb, self.sqs, self.scheduler, self.ssm):
            client.meta.events.register("provide-client-params", self._on_call)
        self.begin_process()

    def close(self) -> None:
        """Leave the clients, which are kept for the next stage, as they were."""
        for client in (self.dynamodb, self.sqs, self.scheduler, self.ssm):
            client.meta.events.unregister("provide-client-params", self._on_call)

    def begin_process(self) -> None:
        """Have the store as a new process has it."""
        self.rows = DynamoDBTimerStore(
            self.dynamodb, NAMES.table, self.clock, sleep=lambda _s: None
        )
        self.store = HandArmedStore(self.rows)

    def another_wakeups(self) -> AwsWakeups:
        """Return the wake-ups as a process has them that has found its queue."""
        wakeups = AwsWakeups(
            self.sqs, lambda: self.scheduler, NAMES, self.clock, near_s=self.near_s
        )
        wakeups.backlog()
        return wakeups

    def waking_store(self, meter: Meter = unmetered) -> WakingTimerStore:
        """Return the store of the engine, which registers a wake-up for every row."""
        return WakingTimerStore(self.rows, self.wakeups, self.clock, meter)

    def timers(self) -> Timers:
        return Timers(self.waking_store(), self.clock)

    def is_armed(self, timer: Timer) -> bool:
        return is_armed(self.rows, timer)

    def signing_secrets(self) -> SigningSecrets:
        """Return the secrets of the stage as a process has them that has not asked yet."""
        return SigningSecrets(lambda: self.ssm, NAMES.signing_secrets, self.clock)

    def keep_secrets(self, text: str) -> None:
        """Make ``text`` what the stage's parameter holds."""
        with self._unwatched():
            self.ssm.put_parameter(
                Name=NAMES.signing_secrets, Value=text, Type="SecureString", Overwrite=True
            )

    def delivery(
        self,
        sender: HandSender,
        meter: Meters | None = None,
        signing_keys: Callable[[], Sequence[bytes]] = tuple,
    ) -> Delivery:
        return delivery_of(
            self.rows,
            self.wakeups,
            sender,
            self.clock,
            meter or unmetered,
            signing_keys=signing_keys,
        )

    def sweeper(self, grace_ms: int = LEASE_MS, **options: Any) -> Sweeper:
        index = DynamoDBDueIndex(self.dynamodb, NAMES.table)
        return Sweeper(index, self.wakeups, self.clock, grace_ms=grace_ms, **options)

    def receive(self, most: int = 10) -> list[Any]:
        """Return the messages that are visible now, and hide them."""
        with self._unwatched():
            answer = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=most)
        return list(answer.get("Messages", []))

    def next_message_at(self) -> float:
        """Return when the next message can be received (epoch ms), infinity if there is none."""
        account, name = self.queue_url.split("/")[-2:]
        queue = sqs_backends[account][self.sqs.meta.region_name].queues[name]
        moments = [max(each.delayed_until, each.visible_at + 1) for each in queue._messages]
        return min(moments, default=math.inf)

    def delete(self, messages: Sequence[Any]) -> None:
        with self._unwatched():
            for message in messages:
                self.sqs.delete_message(
                    QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"]
                )

    def drain(self) -> list[Wakeup]:
        """Take what is visible off the queue, and return it."""
        wakeups: list[Wakeup] = []
        while messages := self.receive():
            wakeups += decode_all([message["Body"] for message in messages], unmetered)
            self.delete(messages)
        return wakeups

    def schedules(self) -> list[Any]:
        """Return every schedule, whole."""
        with self._unwatched():
            group = NAMES.schedule_group
            names = [
                schedule["Name"]
                for schedule in self.scheduler.list_schedules(GroupName=group)["Schedules"]
            ]
            return [self.scheduler.get_schedule(GroupName=group, Name=name) for name in names]

    def unschedule(self, name: str) -> None:
        with self._unwatched():
            self.scheduler.delete_schedule(GroupName=NAMES.schedule_group, Name=name)

    def operations(self) -> list[str]:
        """Return the calls made since the last time, and forget them."""
        operations = [call.operation for call in self.calls]
        self.calls.clear()
        return operations

    def sent(self) -> list[tuple[Wakeup, int]]:
        """Return every wake-up put on the queue, with its delay in seconds."""
        entries = []
        for operation, parameters in self.calls:
            if operation == "SendMessage":
                entries.append(parameters)
            elif operation == "SendMessageBatch":
                entries += parameters["Entries"]
        return [
            (wakeup, entry["DelaySeconds"])
            for entry in entries
            for wakeup in decode_all([entry["MessageBody"]], unmetered)
        ]

    def fail(self, *operations: str) -> None:
        """Let these operations find nobody, all of them when none is named."""

        def refuse(operation: str) -> None:
            if not operations or operation in operations:
                raise EndpointConnectionError(endpoint_url="https://aws.example")

        self.before_call = refuse

    def heal(self) -> None:
        self.before_call = lambda _operation: None

    def _on_call(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if self.watched:
            self.before_call(model.name)
            self.calls.append(AwsCall(model.name, json.loads(json.dumps(params))))

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self.watched = False
        try:
            yield
        finally:
            self.watched = True


@contextmanager
def cloud_on_moto(clock: HandClock, near_s: int = MAX_NEAR_S) -> Iterator[Cloud]:
    """Yield an empty stage. While it lasts, no client reaches AWS."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        patch.setattr("moto.sqs.models.unix_time_millis", lambda: clock.now)
        cloud = Cloud(clock, near_s)
        yield cloud
        cloud.close()


@functools.lru_cache(maxsize=1)
def _clients() -> tuple[DynamoDBClient, SQSClient, EventBridgeSchedulerClient, SSMClient]:
    """Return clients that call once. Made once: that takes longer than most tests."""
    once = Config(retries={"total_max_attempts": 1}, max_pool_connections=32)
    session = boto3.Session("testing", "testing", region_name="eu-central-1")
    return (
        session.client("dynamodb", config=once),
        session.client("sqs", config=once),
        session.client("scheduler", config=once),
        session.client("ssm", config=once),
    )
