"""Wake-ups on AWS: a delayed SQS message for a near time, a one-time schedule for a far one.

EventBridge Scheduler is precise to a minute. So a schedule fires minutes ahead of time. The
function that it invokes puts a message on the queue, with the rest of the delay.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.message import encode
from chalicelib.aws.names import Names
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import MAX_NEAR_S, Wakeup
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_scheduler.type_defs import TargetTypeDef
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

log = logging.getLogger(__name__)

MAX_BATCH = 10
"""Messages per SendMessageBatch (AWS limit)."""

MIN_LEAD_FRACTION = 0.2
MAX_LEAD_FRACTION = 0.867
"""How far ahead schedules fire, as fractions of the near limit: 3 to 13 minutes of 15.

At least 3 minutes, because a schedule may fire a minute late and may be retried. At most 13,
because the rest of the delay must be near even if a schedule fires early: a second schedule for it
would have the name of the first.
"""

# Long enough for a short outage of the function. Then the sweeper is the better retry.
SCHEDULE_RETRIES = 3
SCHEDULE_MAX_AGE_S = 900


@dataclass(frozen=True, slots=True)
class _Queue:
    """The URL of the queue, and the parts of it that ARNs are made of."""

    url: str
    account: str
    region: str
    partition: str


class AwsWakeups:
    """Registers wake-ups with SQS and EventBridge Scheduler. Thread-safe."""

    def __init__(
        self,
        sqs: SQSClient,
        scheduler: Callable[[], EventBridgeSchedulerClient],
        names: Names,
        clock: Clock,
        near_s: int = MAX_NEAR_S,
    ) -> None:
        self._sqs = sqs
        self._scheduler = scheduler
        self._names = names
        self._clock = clock
        self._near_s = near_s
        self._known_queue: _Queue | None = None

    def wake_at(self, wakeup: Wakeup) -> None:
        """Register a wake-up. Raises ``Unavailable`` if that is not possible."""
        if self.is_near(wakeup):
            self._send(wakeup, (wakeup.at - self._clock()) / 1000)
        else:
            self._schedule(wakeup)

    def is_near(self, wakeup: Wakeup) -> bool:
        """Tell whether a message can be delayed until the time of a wake-up."""
        return (wakeup.at - self._clock()) / 1000 <= self._near_s

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Put wake-ups on the queue, ten per call. Return those that the queue accepted.

        Raises ``Unavailable``; some may be on the queue then. A far wake-up gets the longest near
        delay. When it arrives, the delivery registers it again.
        """
        taken: list[Wakeup] = []
        with _unavailable_on_error():
            for start in range(0, len(wakeups), MAX_BATCH):
                batch = wakeups[start : start + MAX_BATCH]
                entries = [self._entry(number, wakeup) for number, wakeup in enumerate(batch)]
                # A batch may succeed in part: SQS can refuse single entries.
                response = self._sqs.send_message_batch(QueueUrl=self._queue.url, Entries=entries)
                taken += [batch[int(entry["Id"])] for entry in response.get("Successful", [])]
        return taken

    def backlog(self) -> int:
        """Return about how many messages can be received now. Delayed ones are not counted."""
        with _unavailable_on_error():
            response = self._sqs.get_queue_attributes(
                QueueUrl=self._queue.url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(response["Attributes"]["ApproximateNumberOfMessages"])

    def forget(self, wakeup: Wakeup) -> None:
        """Delete the schedule of a far wake-up if possible. A message cannot be deleted."""
        # A schedule whose time has passed has deleted itself.
        if wakeup.at - self._lead_ms(wakeup) <= self._clock():
            return
        scheduler = self._scheduler()
        try:
            scheduler.delete_schedule(Name=_name(wakeup), GroupName=self._names.schedule_group)
        except scheduler.exceptions.ResourceNotFoundException:
            return
        except (BotoCoreError, ClientError) as error:
            log.warning("the schedule of timer %s stays, which is harmless: %s", wakeup.id, error)

    @property
    def _queue(self) -> _Queue:
        """The queue, looked up once. Its URL contains the account that ARNs need."""
        if self._known_queue is None:
            url = self._sqs.get_queue_url(QueueName=self._names.queue)["QueueUrl"]
            meta = self._sqs.meta
            self._known_queue = _Queue(
                url=url,
                # https://sqs.<region>.amazonaws.com/<account>/<queue>; emulators have other hosts.
                account=url.rstrip("/").split("/")[-2],
                region=meta.region_name,
                partition=meta.partition,
            )
        return self._known_queue

    def _send(self, wakeup: Wakeup, left_s: float) -> None:
        with _unavailable_on_error():
            self._sqs.send_message(
                QueueUrl=self._queue.url,
                MessageBody=encode(wakeup),
                DelaySeconds=_delay_s(left_s),
            )

    def _entry(self, number: int, wakeup: Wakeup) -> SendMessageBatchRequestEntryTypeDef:
        left_s = min((wakeup.at - self._clock()) / 1000, self._near_s)
        return {
            "Id": str(number),
            "MessageBody": encode(wakeup),
            "DelaySeconds": _delay_s(left_s),
        }

    def _schedule(self, wakeup: Wakeup) -> None:
        # Whole seconds, rounded down: a schedule has no fraction of a second.
        when = datetime.fromtimestamp((wakeup.at - self._lead_ms(wakeup)) // 1000, timezone.utc)
        with _unavailable_on_error():
            target = self._target(wakeup)
            scheduler = self._scheduler()
            try:
                scheduler.create_schedule(
                    Name=_name(wakeup),
                    GroupName=self._names.schedule_group,
                    ScheduleExpression=f"at({when:%Y-%m-%dT%H:%M:%S})",
                    ScheduleExpressionTimezone="UTC",
                    FlexibleTimeWindow={"Mode": "OFF"},
                    # A schedule that has fired would count towards the account's quota for ever.
                    ActionAfterCompletion="DELETE",
                    Target=target,
                )
            except scheduler.exceptions.ConflictException:
                # The name has timer, version and time. So the same schedule exists: this is a
                # repeated call whose first try applied.
                log.info("timer %s had its schedule already", wakeup.id)

    def _target(self, wakeup: Wakeup) -> TargetTypeDef:
        """Return what a schedule invokes: the webhook function, with ``wakeup`` as its input."""
        queue = self._queue
        account = f"{queue.region}:{queue.account}"
        return {
            "Arn": f"arn:{queue.partition}:lambda:{account}:function:"
            f"{self._names.webhook_function}",
            "RoleArn": f"arn:{queue.partition}:iam::{queue.account}:role/"
            f"{self._names.scheduler_role}",
            "Input": encode(wakeup),
            "RetryPolicy": {
                "MaximumRetryAttempts": SCHEDULE_RETRIES,
                "MaximumEventAgeInSeconds": SCHEDULE_MAX_AGE_S,
            },
            "DeadLetterConfig": {
                "Arn": f"arn:{queue.partition}:sqs:{account}:{self._names.dead_letters}"
            },
        }

    def _lead_ms(self, wakeup: Wakeup) -> int:
        """Return how far ahead of its wake-up a schedule fires, in ms.

        This is spread by timer, because Scheduler limits its invocations per second (AWS quota)
        and many timers may be due at the same time. ``forget`` must find the same value again.
        """
        position = int.from_bytes(_digest(wakeup)[:4], "big") / 2**32
        spread = MAX_LEAD_FRACTION - MIN_LEAD_FRACTION
        return int(self._near_s * 1000 * (MIN_LEAD_FRACTION + position * spread))


def _digest(wakeup: Wakeup) -> bytes:
    """Return a hash of the timer: evenly spread, and the same in every process."""
    return hashlib.sha256(f"{wakeup.tenant}\n{wakeup.id}".encode()).digest()


def _name(wakeup: Wakeup) -> str:
    """Return the name of a wake-up's schedule (AWS limit: 1 to 64 of ``[0-9a-zA-Z-_.]``)."""
    # The time is in the name as well as the version. A reschedule whose write failed may have left
    # a schedule of the same version, but for another time. The new one must not conflict with it.
    return f"{_digest(wakeup).hex()[:32]}-{wakeup.version}-{wakeup.at}"


def _delay_s(left_s: float) -> int:
    """Return ``DelaySeconds`` for a wake-up that is ``left_s`` seconds away."""
    # Rounded down: rounded up, a call would be late by up to a second. The delivery waits for the
    # fraction instead.
    return max(0, min(int(left_s), MAX_NEAR_S))


@contextlib.contextmanager
def _unavailable_on_error() -> Iterator[None]:
    """Turn the failures of a call to SQS or Scheduler into ``Unavailable``."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        missing = "NonExistent" in code or "NotFound" in code or "DoesNotExist" in code
        hint = " Has this stage been set up (make infra)?" if missing else ""
        raise Unavailable(f"A wake-up cannot be registered: {code}.{hint}") from error
    except BotoCoreError as error:
        raise Unavailable(f"A wake-up cannot be registered: {error}.") from error
