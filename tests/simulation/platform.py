"""What AWS does around the functions: a queue, one-time schedules, and functions that are invoked.

The clients are what ``AwsWaker`` knows of boto3. Messages are delayed by whole seconds up to 900,
hidden while they are delivered, deleted once the function returned, and seen again if it did not.
Schedules come up to a minute late. All of them may come twice, late, early, or never.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

from chalicelib.aws.message import decode
from chalicelib.aws.wakeups import MAX_LEAD
from chalicelib.domain.timer import Wakeup
from chalicelib.service.sweep import MARK_MS
from tests.simulation.faults import Faults
from tests.simulation.hub import Hub
from tests.simulation.weather import Weather

MAX_DELAY_S = 900
BATCH = 10
MOST_RECEIVES = 5
"""A message that was received so often is a dead letter."""

RETRIES_MS = (60_000.0, 120_000.0)
"""When Lambda invokes a function again that a schedule invoked in vain."""

SCHEDULE_LATE_MS = 60_000.0
LATE_MS = 180_000.0

EARLY = 0.8 * (1 - MAX_LEAD)
"""How much earlier schedules may come, as a part of the near limit. Were it more, what is left
would be another schedule of the same name, which is not there only once this one is gone."""


class NotThere(ClientError):
    """There is no such schedule."""


class Conflict(ClientError):
    """There is such a schedule."""


def unreachable() -> Exception:
    """Return what a client raises whose call is not answered."""
    return EndpointConnectionError(endpoint_url="https://aws.example")


@dataclass(eq=False, slots=True)
class Hint:
    """A wake-up that is registered: a message or a schedule."""

    number: int
    body: str
    wakeup: Wakeup
    registered_at: float
    due_at: float
    name: str | None = None
    """Of a schedule; messages have none."""

    lost: bool = False
    """It will never come, or came too often: whoever registered it does not know."""
    gone: bool = False
    spent: bool = False
    """Its delivery ended well, and its deletion is to come."""
    received: int = 0

    def __str__(self) -> str:
        kind = self.name or f"message {self.number}"
        return f"{kind} for {self.wakeup}"


@dataclass(eq=False, slots=True)
class Invocation:
    """A function at work on wake-ups. ``ended``: told whether it returned normally."""

    hints: Sequence[Hint]
    ended: Callable[[bool], None]
    over: bool = False
    delivering: list[Hint] = field(default_factory=list)
    undelivered: list[tuple[Hint, float]] = field(default_factory=list)
    """What could not be delivered, and from which moment on that was tried."""

    def take(self, wakeup: Wakeup) -> Hint:
        """Return the hint that is being delivered, one after the other if some are equal."""
        for hint in self.hints:
            if hint.wakeup == wakeup and hint not in self.delivering:
                self.delivering.append(hint)
                return hint
        raise AssertionError(f"{wakeup} was not asked for")


Invoke = Callable[[Invocation], bool]
"""Let a function work; False if none is free."""


FLOOD = 1_000
"""After so many wake-ups there is peace: where most answers are lost, what is put back is put back
twice, and a history would have no end."""


class Platform:
    """The queue, the schedules, and what invokes functions for them."""

    def __init__(
        self, hub: Hub, chance: random.Random, weather: Weather, faults: Faults, invoke: Invoke
    ) -> None:
        self._hub = hub
        self._chance = chance
        self._weather = weather
        self._faults = faults
        self._invoke = invoke
        self.refusal = weather.refused
        self._numbers = 0
        self._hints: list[Hint] = []
        self._sent: dict[Wakeup, float] = {}
        self._waiting: list[Hint] = []
        """Schedules that came, whose function could not be invoked yet."""

    def registered(self, wakeup: Wakeup, *, but: Hint | None, since: float) -> bool:
        """Tell whether another wake-up of this timer and version is registered.

        One that the platform has lost counts if it was registered since then.
        """
        return any(
            hint is not but
            and (hint.wakeup.tenant, hint.wakeup.id, hint.wakeup.version)
            == (wakeup.tenant, wakeup.id, wakeup.version)
            and (hint.registered_at >= since if hint.lost else not (hint.gone or hint.spent))
            for hint in self._hints
        )

    def was_registered(self, wakeup: Wakeup) -> bool:
        """Tell whether this very wake-up was put on the queue in the last ten minutes."""
        return self._sent.get(wakeup, -math.inf) > self._hub.now - MARK_MS

    def backlog(self) -> int:
        """Return how many messages could be received now."""
        return len(self._visible())

    def send(self, body: str, delay_s: int) -> None:
        """Put a message on the queue."""
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise AssertionError(f"DelaySeconds: {delay_s}")
        delay_ms = delay_s * 1000.0
        if self._faults.happens(self._weather.early, "early"):
            delay_ms *= self._chance.random()
        hint = self._register(body, delay_ms + self._lag())
        self._hub.at(hint.due_at, self.deliver)

    def schedule(self, name: str, at: float, body: str) -> None:
        """Make a schedule. One whose time is past never comes."""
        existing = self._schedule(name)
        if existing is not None:
            existing.registered_at = self._hub.now
            raise Conflict({"Error": {"Code": "ConflictException"}}, "CreateSchedule")
        late_ms = self._chance.random() * min(SCHEDULE_LATE_MS, self._weather.near_s * 190.0)
        left_ms = at - self._hub.now
        if self._faults.happens(self._weather.early, "early"):
            late_ms = -self._chance.random() * EARLY * self._weather.near_s * 1000
        hint = self._register(body, left_ms + late_ms + self._lag(), name)
        if at >= self._hub.now:
            self._hub.at(hint.due_at, lambda: self._fire(hint))

    def unschedule(self, name: str) -> None:
        """Delete a schedule."""
        existing = self._schedule(name)
        if existing is None:
            raise NotThere({"Error": {"Code": "ResourceNotFoundException"}}, "DeleteSchedule")
        existing.gone = True

    def deliver(self) -> None:
        """Invoke functions for what has come, as long as any are free."""
        self._hints = [hint for hint in self._hints if not hint.gone or hint.lost]
        while self._waiting:
            if not self._invoke_for_schedule(self._waiting[0], 0):
                return
            self._waiting.pop(0)
        while (visible := self._visible()) and self._invoke_for_messages(visible):
            pass

    def _schedule(self, name: str) -> Hint | None:
        named = (hint for hint in self._hints if hint.name == name and not hint.gone)
        return next(named, None)

    def _lag(self) -> float:
        if self._faults.happens(self._weather.late, "late"):
            return self._chance.random() * LATE_MS
        return 0.0

    def _register(self, body: str, delay_ms: float, name: str | None = None) -> Hint:
        self._numbers += 1
        now = self._hub.now
        hint = Hint(self._numbers, body, decode(body), now, now + delay_ms, name)
        hint.lost = self._faults.happens(self._weather.lost, "lost")
        self._hints.append(hint)
        if len(self._hints) > FLOOD:
            self._faults.on = False
        self._sent[hint.wakeup] = now
        return hint

    def _visible(self) -> list[Hint]:
        now = self._hub.now
        return [
            hint
            for hint in self._hints
            if hint.name is None and hint.due_at <= now and not (hint.gone or hint.lost)
        ]

    def _invoke_for_messages(self, visible: list[Hint]) -> bool:
        batch = visible[: self._chance.randint(1, BATCH)]
        if not self._invoke(Invocation(batch, lambda well: self._delivered(batch, well=well))):
            return False
        for hint in batch:
            self._hide(hint)
        return True

    def _hide(self, hint: Hint) -> None:
        hint.received += 1
        hint.spent = False
        hint.lost = hint.received > MOST_RECEIVES
        hidden_ms = self._weather.visibility_s * 1000.0
        if self._faults.happens(self._weather.doubled, "doubled"):
            hidden_ms *= self._chance.random() ** 4
        hint.due_at = self._hub.now + hidden_ms
        self._hub.at(hint.due_at, self.deliver)

    def _delivered(self, batch: Sequence[Hint], *, well: bool) -> None:
        if well:
            for hint in batch:
                hint.gone = not self._faults.happens(self._weather.doubled / 2, "not deleted")
        self.deliver()

    def _fire(self, hint: Hint) -> None:
        if hint.gone or hint.lost:
            return
        self._waiting.append(hint)
        if self._faults.happens(self._weather.doubled, "doubled"):
            self._waiting.append(hint)
        self.deliver()

    def _invoke_for_schedule(self, hint: Hint, failures: int) -> bool:
        def ended(well: bool) -> None:  # noqa: FBT001 - what an invocation tells
            if well:
                hint.gone = True
            elif failures == len(RETRIES_MS):
                hint.lost = True
            else:
                self._hub.after(RETRIES_MS[failures], lambda: self._again(hint, failures + 1))
            self.deliver()

        return self._invoke(Invocation([hint], ended))

    def _again(self, hint: Hint, failures: int) -> None:
        hint.spent = False
        if not self._invoke_for_schedule(hint, failures):
            self._hub.after(1_000.0, lambda: self._again(hint, failures))


class QueueClient:
    """What ``AwsWaker`` knows of boto3's client of SQS."""

    meta = SimpleNamespace(region_name="eu-central-1", partition="aws")

    def __init__(self, platform: Platform, faults: Faults) -> None:
        self._platform = platform
        self._faults = faults

    def get_queue_url(self, QueueName: str) -> Mapping[str, str]:  # noqa: N803
        return {"QueueUrl": f"https://sqs.example/123456789012/{QueueName}"}

    def send_message(self, QueueUrl: str, MessageBody: str, DelaySeconds: int) -> None:  # noqa: N803
        self._faults.call(
            "sqs.send_message",
            lambda: self._platform.send(MessageBody, DelaySeconds),
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
                if not self._faults.happens(self._platform.refusal, "not taken"):
                    self._platform.send(entry["MessageBody"], entry["DelaySeconds"])
                    taken.append({"Id": entry["Id"]})
            return taken

        taken = self._faults.call(
            "sqs.send_message_batch", send, len(Entries), lost=unreachable, repeats=True
        )
        return {"Successful": taken}

    def get_queue_attributes(self, **_: object) -> Mapping[str, Any]:
        backlog = self._faults.call(
            "sqs.get_queue_attributes", self._platform.backlog, lost=unreachable
        )
        return {"Attributes": {"ApproximateNumberOfMessages": str(backlog)}}


class ScheduleClient:
    """What ``AwsWaker`` knows of boto3's client of EventBridge Scheduler."""

    exceptions = SimpleNamespace(ResourceNotFoundException=NotThere, ConflictException=Conflict)

    def __init__(self, platform: Platform, faults: Faults) -> None:
        self._platform = platform
        self._faults = faults

    def create_schedule(self, **wanted: Any) -> None:
        when = wanted["ScheduleExpression"].removeprefix("at(").removesuffix(")")
        at = datetime.fromisoformat(when + "+00:00").timestamp() * 1000
        name, body = wanted["Name"], wanted["Target"]["Input"]
        self._faults.call(
            "scheduler.create_schedule",
            lambda: self._platform.schedule(name, at, body),
            name,
            at,
            lost=unreachable,
            repeats=True,
        )

    def delete_schedule(self, Name: str, GroupName: str) -> None:  # noqa: N803
        self._faults.call(
            "scheduler.delete_schedule",
            lambda: self._platform.unschedule(Name),
            Name,
            lost=unreachable,
            repeats=True,
        )
