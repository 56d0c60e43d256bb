"""One stage of the AWS engine in this process, on moto and the tests' clock.

A test sees every call to AWS and can make calls fail. Messages are delayed and hidden by the tests'
clock too.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from moto.sqs.models import sqs_backends

from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.aws.message import decode_all
from chalicelib.aws.names import Names
from chalicelib.aws.secrets import SigningSecrets
from chalicelib.aws.wakeups import AwsWakeups
from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import MAX_NEAR_S, Timer, Wakeup
from chalicelib.service.delivery import Delivery
from chalicelib.service.ports import Meter, Sender, unmetered
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers
from infra.resources import create_missing
from tests.support.clock import ManualClock
from tests.support.delivery import delivery_of
from tests.support.factories import LEASE_MS
from tests.support.moto import REGION, aws_on_moto
from tests.support.stores import FakeWakingStore, is_armed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

NAMES = Names("test")
VISIBILITY_S = 30


class AwsCall(NamedTuple):
    """One call to AWS."""

    operation: str
    parameters: dict[str, Any]


class MotoStage:
    """The tables, queues, schedules and secrets of one stage, and the use cases on them.

    ``calls`` holds the calls to AWS; ``before_call`` runs before each and may raise instead. The
    methods of this class that look at the stage as an operator does are not among the calls.
    """

    def __init__(self, clock: ManualClock, near_s: int = MAX_NEAR_S) -> None:
        self.clock = clock
        self.dynamodb, self.sqs, self.scheduler, self.ssm = _clients()
        create_missing(
            self.dynamodb, self.sqs, self.scheduler, NAMES.stage, visibility_s=VISIBILITY_S
        )
        self.queue_url = self.sqs.get_queue_url(QueueName=NAMES.queue)["QueueUrl"]
        self.calls: list[AwsCall] = []
        self.before_call: Callable[[str], object] = lambda _operation: None
        self.recording = True
        self.near_s = near_s
        self.wakeups = self.new_wakeups()
        for client in (self.dynamodb, self.sqs, self.scheduler, self.ssm):
            client.meta.events.register("provide-client-params", self._on_call)
        self.begin_process()

    def close(self) -> None:
        """Take the hooks off the clients: the next stage uses the same."""
        for client in (self.dynamodb, self.sqs, self.scheduler, self.ssm):
            client.meta.events.unregister("provide-client-params", self._on_call)

    def begin_process(self, rate: Rate | None = None) -> None:
        """Replace the store by that of a new process, which has no ids reserved."""
        self.rows = DynamoDBTimerStore(
            self.dynamodb, NAMES.table, self.clock, rate=rate, sleep=lambda _s: None
        )
        self.store = FakeWakingStore(self.rows)

    def new_wakeups(self) -> AwsWakeups:
        """Return the wake-ups of a new process, which has looked up its queue already."""
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
        """Return the signing secrets of a new process, which has read none yet."""
        return SigningSecrets(lambda: self.ssm, NAMES.signing_secrets, self.clock)

    def put_secrets(self, text: str) -> None:
        """Put ``text`` into the parameter of the stage."""
        with self._not_recorded():
            self.ssm.put_parameter(
                Name=NAMES.signing_secrets, Value=text, Type="SecureString", Overwrite=True
            )

    def delivery(
        self,
        sender: Sender,
        meter: Meter = unmetered,
        signing_keys: Callable[[], Sequence[bytes]] = tuple,
    ) -> Delivery:
        return delivery_of(
            self.rows,
            self.wakeups,
            sender,
            self.clock,
            meter,
            signing_keys=signing_keys,
        )

    def sweeper(self, grace_ms: int = LEASE_MS, **options: Any) -> Sweeper:
        index = DynamoDBDueIndex(self.dynamodb, NAMES.table)
        return Sweeper(index, self.wakeups, self.clock, grace_ms=grace_ms, **options)

    def receive(self, most: int = 10) -> list[Any]:
        """Return the messages that are visible now, and hide them."""
        with self._not_recorded():
            response = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=most)
        return list(response.get("Messages", []))

    def next_message_at(self) -> float:
        """Return when the next message can be received (epoch ms), infinity if there is none."""
        account, name = self.queue_url.split("/")[-2:]
        queue = sqs_backends[account][self.sqs.meta.region_name].queues[name]
        visible_at = [max(each.delayed_until, each.visible_at + 1) for each in queue._messages]
        return min(visible_at, default=math.inf)

    def delete(self, messages: Sequence[Any]) -> None:
        with self._not_recorded():
            for message in messages:
                self.sqs.delete_message(
                    QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"]
                )

    def drain(self) -> list[Wakeup]:
        """Receive and delete all visible messages; return their wake-ups."""
        wakeups: list[Wakeup] = []
        while messages := self.receive():
            wakeups += decode_all([message["Body"] for message in messages], unmetered)
            self.delete(messages)
        return wakeups

    def schedules(self) -> list[Any]:
        """Return every schedule with all its fields."""
        with self._not_recorded():
            group = NAMES.schedule_group
            names = [
                schedule["Name"]
                for schedule in self.scheduler.list_schedules(GroupName=group)["Schedules"]
            ]
            return [self.scheduler.get_schedule(GroupName=group, Name=name) for name in names]

    def unschedule(self, name: str) -> None:
        with self._not_recorded():
            self.scheduler.delete_schedule(GroupName=NAMES.schedule_group, Name=name)

    def operations(self) -> list[str]:
        """Return the names of the calls since the last time, and forget them."""
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
        """Make these operations unreachable, all of them when none is named."""

        def fail(operation: str) -> None:
            if not operations or operation in operations:
                raise EndpointConnectionError(endpoint_url="https://aws.example")

        self.before_call = fail

    def heal(self) -> None:
        self.before_call = lambda _operation: None

    def _on_call(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if self.recording:
            self.before_call(model.name)
            self.calls.append(AwsCall(model.name, copy.deepcopy(params)))

    @contextmanager
    def _not_recorded(self) -> Iterator[None]:
        self.recording = False
        try:
            yield
        finally:
            self.recording = True


@contextmanager
def empty_stage(clock: ManualClock, near_s: int = MAX_NEAR_S) -> Iterator[MotoStage]:
    """Yield a stage without timers. While it lasts, no client reaches AWS."""
    with aws_on_moto() as patch:
        # moto has no parameter for its time: messages would be delayed by the machine's clock.
        patch.setattr("moto.sqs.models.unix_time_millis", lambda: clock.now)
        stage = MotoStage(clock, near_s)
        yield stage
        stage.close()


@functools.lru_cache(maxsize=1)
def _clients() -> tuple[DynamoDBClient, SQSClient, EventBridgeSchedulerClient, SSMClient]:
    """Return clients that call once. Made once: that takes longer than most tests."""
    once = Config(retries={"total_max_attempts": 1}, max_pool_connections=32)
    session = boto3.Session("testing", "testing", region_name=REGION)
    return (
        session.client("dynamodb", config=once),
        session.client("sqs", config=once),
        session.client("scheduler", config=once),
        session.client("ssm", config=once),
    )
