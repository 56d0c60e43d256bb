"""Wake-ups on AWS: a delayed SQS message for a near time, a one-time schedule for a far one.

EventBridge Scheduler is precise to a minute. So a schedule comes minutes ahead of time, and the
function it invokes puts the exact rest of the delay on the queue.
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
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

log = logging.getLogger(__name__)

BATCH = 10
"""The most messages that one SendMessageBatch takes."""

MIN_LEAD = 0.2
MAX_LEAD = 0.867
"""How far ahead schedules come, as fractions of the near limit: 3 to 13 minutes of 15."""

SCHEDULE_RETRIES = 3
SCHEDULE_MAX_AGE_S = 900
_SPREAD = 2**32


@dataclass(frozen=True, slots=True)
class _QueueAddress:
    """The address of the queue, and what ARNs need of it."""

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
        self._found: _QueueAddress | None = None

    def wake_at(self, wakeup: Wakeup) -> None:
        """Register a wake-up. Raises ``Unavailable`` when it could not be registered."""
        left_s = (wakeup.at - self._clock()) / 1000
        if left_s <= self._near_s:
            self._send(wakeup, left_s)
        else:
            self._schedule(wakeup)

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Put wake-ups on the queue, ten a call; return those it took.

        A far wake-up gets the longest delay that SQS allows; the delivery registers it again then.
        """
        taken: list[Wakeup] = []
        with _unavailable_on_error():
            for start in range(0, len(wakeups), BATCH):
                batch = wakeups[start : start + BATCH]
                entries = [self._entry(number, wakeup) for number, wakeup in enumerate(batch)]
                response = self._sqs.send_message_batch(QueueUrl=self._address.url, Entries=entries)
                taken += [batch[int(entry["Id"])] for entry in response.get("Successful", [])]
        return taken

    def backlog(self) -> int:
        """Return roughly how many messages are ready to be received; delayed ones do not count."""
        with _unavailable_on_error():
            response = self._sqs.get_queue_attributes(
                QueueUrl=self._address.url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(response["Attributes"]["ApproximateNumberOfMessages"])

    def forget(self, wakeup: Wakeup) -> None:
        """Delete the schedule of a far wake-up, best effort. Messages cannot be taken back."""
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
    def _address(self) -> _QueueAddress:
        """The queue's address, asked for once. It contains the account that ARNs need."""
        if self._found is None:
            url = self._sqs.get_queue_url(QueueName=self._names.queue)["QueueUrl"]
            meta = self._sqs.meta
            self._found = _QueueAddress(
                url=url,
                account=url.rstrip("/").split("/")[-2],
                region=meta.region_name,
                partition=meta.partition,
            )
        return self._found

    def _send(self, wakeup: Wakeup, left_s: float) -> None:
        with _unavailable_on_error():
            self._sqs.send_message(
                QueueUrl=self._address.url,
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
        when = datetime.fromtimestamp((wakeup.at - self._lead_ms(wakeup)) // 1000, timezone.utc)
        with _unavailable_on_error():
            place = self._address
            scheduler = self._scheduler()
            account = f"{place.region}:{place.account}"
            try:
                scheduler.create_schedule(
                    Name=_name(wakeup),
                    GroupName=self._names.schedule_group,
                    ScheduleExpression=f"at({when:%Y-%m-%dT%H:%M:%S})",
                    ScheduleExpressionTimezone="UTC",
                    FlexibleTimeWindow={"Mode": "OFF"},
                    ActionAfterCompletion="DELETE",
                    Target={
                        "Arn": f"arn:{place.partition}:lambda:{account}:function:"
                        f"{self._names.webhook_function}",
                        "RoleArn": f"arn:{place.partition}:iam::{place.account}:role/"
                        f"{self._names.scheduler_role}",
                        "Input": encode(wakeup),
                        "RetryPolicy": {
                            "MaximumRetryAttempts": SCHEDULE_RETRIES,
                            "MaximumEventAgeInSeconds": SCHEDULE_MAX_AGE_S,
                        },
                        "DeadLetterConfig": {
                            "Arn": f"arn:{place.partition}:sqs:{account}:{self._names.dead_letters}"
                        },
                    },
                )
            except scheduler.exceptions.ConflictException:
                # The name holds timer, version and time: the first try of a repeated call applied.
                log.info("timer %s had its schedule already", wakeup.id)

    def _lead_ms(self, wakeup: Wakeup) -> int:
        """Return how far ahead the schedule comes, spread by id.

        Scheduler limits its invocations per second (AWS quota), so not all may come at once.
        """
        fraction = int.from_bytes(_digest(wakeup)[:4], "big") / _SPREAD
        return int(self._near_s * 1000 * (MIN_LEAD + fraction * (MAX_LEAD - MIN_LEAD)))


def _digest(wakeup: Wakeup) -> bytes:
    return hashlib.sha256(f"{wakeup.tenant}\n{wakeup.id}".encode()).digest()


def _name(wakeup: Wakeup) -> str:
    """Return the name of a wake-up's schedule (1 to 64 of ``[0-9a-zA-Z-_.]``).

    The name has the time as well as the version. A reschedule that failed half way may have left
    a schedule under the same version, which must not be mistaken for the new one.
    """
    return f"{_digest(wakeup).hex()[:32]}-{wakeup.version}-{wakeup.at}"


def _delay_s(left_s: float) -> int:
    """Return whole seconds, rounded down: the delivery waits out the rest."""
    return max(0, min(int(left_s), MAX_NEAR_S))


@contextlib.contextmanager
def _unavailable_on_error() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        missing = "NonExistent" in code or "NotFound" in code or "DoesNotExist" in code
        hint = " Has this stage been set up (make infra)?" if missing else ""
        raise Unavailable(f"A wake-up cannot be registered: {code}.{hint}") from error
    except BotoCoreError as error:
        raise Unavailable(f"A wake-up cannot be registered: {error}.") from error
