"""Simulated AWS: a queue, one-time schedules, and the invocation of functions for both.

Messages are delayed by whole seconds up to 900, hidden while they are delivered, deleted once the
function has returned, and visible again if it has not. Schedules come up to a minute late. Both
may be duplicated, late, early or lost. ``aws_clients`` has the clients that processes use.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from chalicelib.aws.message import decode
from chalicelib.aws.wakeups import MAX_LEAD_FRACTION
from chalicelib.domain.timer import Wakeup
from chalicelib.service.sweep import MARK_TTL_MS
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.fault_profile import FaultProfile
from tests.simulation.virtual_time import VirtualTime

MAX_DELAY_S = 900
MAX_BATCH = 10
MAX_RECEIVES = 5
"""A message received more often than this becomes a dead letter."""

RETRIES_MS = (60_000.0, 120_000.0)
"""After these times Lambda repeats a failed invocation that a schedule asked for."""

MAX_SCHEDULE_LATE_MS = 60_000.0
MAX_LATE_MS = 180_000.0

MAX_EARLY = 0.8 * (1 - MAX_LEAD_FRACTION)
"""How much earlier a schedule may come, as a share of the near limit. After a schedule that came
earlier than this, the rest of the wait would need a schedule of the same name, which cannot be
created before the first one is gone."""

MAX_WAKEUPS = 1_000
"""After so many wake-ups no more faults are injected. Where most responses are lost, wake-ups that
are put back are put back twice, and a run would never end."""


class ScheduleNotFound(ClientError):
    """There is no such schedule."""


class ScheduleExists(ClientError):
    """There is such a schedule already."""


@dataclass(eq=False, slots=True)
class RegisteredWakeup:
    """A message or a schedule."""

    number: int
    body: str
    wakeup: Wakeup
    registered_at: float
    due_at: float
    name: str | None = None
    """The name of a schedule; None for a message."""

    lost: bool = False
    """It will never come, or came too often, and the code under test does not know."""
    deleted: bool = False
    handled: bool = False
    """Its delivery ended well, and it will be deleted."""
    receives: int = 0

    def __str__(self) -> str:
        kind = self.name or f"message {self.number}"
        return f"{kind} for {self.wakeup}"


@dataclass(eq=False, slots=True)
class Invocation:
    """A function that delivers wake-ups. ``ended`` is told whether it returned normally."""

    wakeups: Sequence[RegisteredWakeup]
    ended: Callable[[bool], None]
    over: bool = False
    taken: list[RegisteredWakeup] = field(default_factory=list)
    undelivered: list[tuple[RegisteredWakeup, float]] = field(default_factory=list)
    """The wake-ups that could not be delivered, each with the start of that attempt."""

    def take(self, wakeup: Wakeup) -> RegisteredWakeup:
        """Return what is being delivered: of several equal wake-ups each is returned once."""
        for registered in self.wakeups:
            if registered.wakeup == wakeup and registered not in self.taken:
                self.taken.append(registered)
                return registered
        raise AssertionError(f"{wakeup} was not asked for")


Invoke = Callable[[Invocation], bool]
"""Invoke a function; return False if no instance is free."""


class SimulatedAws:
    """The queue, the schedules, and their invocations of functions."""

    def __init__(
        self,
        time: VirtualTime,
        rng: random.Random,
        profile: FaultProfile,
        faults: FaultInjector,
        invoke: Invoke,
    ) -> None:
        self._time = time
        self._rng = rng
        self._profile = profile
        self._faults = faults
        self._invoke = invoke
        self.entry_refused = profile.refused
        """The probability that one entry of a batch of messages is refused."""
        self._numbers = 0
        self._registered: list[RegisteredWakeup] = []
        self._queued_at: dict[Wakeup, float] = {}
        self._waiting: list[RegisteredWakeup] = []
        """Schedules whose time has come while no function instance was free."""

    def is_registered(
        self, wakeup: Wakeup, *, besides: RegisteredWakeup | None, since: float
    ) -> bool:
        """Return whether another wake-up of this timer and version is registered.

        A lost one counts if it was registered after ``since``: the code under test cannot know.
        """
        return any(
            registered is not besides
            and (registered.wakeup.tenant, registered.wakeup.id, registered.wakeup.version)
            == (wakeup.tenant, wakeup.id, wakeup.version)
            and (
                registered.registered_at >= since
                if registered.lost
                else not (registered.deleted or registered.handled)
            )
            for registered in self._registered
        )

    def was_queued(self, wakeup: Wakeup) -> bool:
        """Return whether this wake-up was registered within the lifetime of a sweep's mark."""
        return self._queued_at.get(wakeup, -math.inf) > self._time.now - MARK_TTL_MS

    def backlog(self) -> int:
        """Return how many messages could be received now."""
        return len(self._visible())

    def send(self, body: str, delay_s: int) -> None:
        """Put a message on the queue."""
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise AssertionError(f"DelaySeconds: {delay_s}")
        delay_ms = delay_s * 1000.0
        if self._faults.occurs(self._profile.wakeup_early, "wake-up early"):
            delay_ms *= self._rng.random()
        registered = self._register(body, delay_ms + self._late_ms())
        self._time.at(registered.due_at, self.deliver)

    def schedule(self, name: str, at: float, body: str) -> None:
        """Create a schedule. If its time is past, it never comes."""
        existing = self._schedule(name)
        if existing is not None:
            existing.registered_at = self._time.now
            raise ScheduleExists({"Error": {"Code": "ConflictException"}}, "CreateSchedule")
        shift_ms = self._rng.random() * min(MAX_SCHEDULE_LATE_MS, self._profile.near_s * 190.0)
        left_ms = at - self._time.now
        if self._faults.occurs(self._profile.wakeup_early, "wake-up early"):
            shift_ms = -self._rng.random() * MAX_EARLY * self._profile.near_s * 1000
        registered = self._register(body, left_ms + shift_ms + self._late_ms(), name)
        if at >= self._time.now:
            self._time.at(registered.due_at, lambda: self._fire(registered))

    def unschedule(self, name: str) -> None:
        """Delete a schedule."""
        existing = self._schedule(name)
        if existing is None:
            raise ScheduleNotFound(
                {"Error": {"Code": "ResourceNotFoundException"}}, "DeleteSchedule"
            )
        existing.deleted = True

    def deliver(self) -> None:
        """Invoke functions for all wake-ups that have come, while instances are free."""
        self._registered = [each for each in self._registered if not each.deleted or each.lost]
        while self._waiting:
            if not self._invoke_for_schedule(self._waiting[0], 0):
                return
            self._waiting.pop(0)
        while (visible := self._visible()) and self._invoke_for_messages(visible):
            pass

    def _schedule(self, name: str) -> RegisteredWakeup | None:
        named = (each for each in self._registered if each.name == name and not each.deleted)
        return next(named, None)

    def _late_ms(self) -> float:
        if self._faults.occurs(self._profile.wakeup_late, "wake-up late"):
            return self._rng.random() * MAX_LATE_MS
        return 0.0

    def _register(self, body: str, delay_ms: float, name: str | None = None) -> RegisteredWakeup:
        self._numbers += 1
        now = self._time.now
        registered = RegisteredWakeup(self._numbers, body, decode(body), now, now + delay_ms, name)
        registered.lost = self._faults.occurs(self._profile.wakeup_lost, "wake-up lost")
        self._registered.append(registered)
        if len(self._registered) > MAX_WAKEUPS:
            self._faults.enabled = False
        self._queued_at[registered.wakeup] = now
        return registered

    def _visible(self) -> list[RegisteredWakeup]:
        now = self._time.now
        return [
            each
            for each in self._registered
            if each.name is None and each.due_at <= now and not (each.deleted or each.lost)
        ]

    def _invoke_for_messages(self, visible: list[RegisteredWakeup]) -> bool:
        batch = visible[: self._rng.randint(1, MAX_BATCH)]
        if not self._invoke(Invocation(batch, lambda ok: self._delivered(batch, ok=ok))):
            return False
        for message in batch:
            self._hide(message)
        return True

    def _hide(self, message: RegisteredWakeup) -> None:
        message.receives += 1
        message.handled = False
        message.lost = message.receives > MAX_RECEIVES
        hidden_ms = self._profile.visibility_s * 1000.0
        if self._faults.occurs(self._profile.wakeup_duplicated, "wake-up duplicated"):
            hidden_ms *= self._rng.random() ** 4
        message.due_at = self._time.now + hidden_ms
        self._time.at(message.due_at, self.deliver)

    def _delivered(self, batch: Sequence[RegisteredWakeup], *, ok: bool) -> None:
        if ok:
            stays = self._profile.wakeup_duplicated / 2
            for message in batch:
                message.deleted = not self._faults.occurs(stays, "message not deleted")
        self.deliver()

    def _fire(self, schedule: RegisteredWakeup) -> None:
        if schedule.deleted or schedule.lost:
            return
        self._waiting.append(schedule)
        if self._faults.occurs(self._profile.wakeup_duplicated, "wake-up duplicated"):
            self._waiting.append(schedule)
        self.deliver()

    def _invoke_for_schedule(self, schedule: RegisteredWakeup, failures: int) -> bool:
        def ended(ok: bool) -> None:  # noqa: FBT001 - the signature of Invocation.ended
            if ok:
                schedule.deleted = True
            elif failures == len(RETRIES_MS):
                schedule.lost = True
            else:
                retry_ms = RETRIES_MS[failures]
                self._time.after(retry_ms, lambda: self._invoke_again(schedule, failures + 1))
            self.deliver()

        return self._invoke(Invocation([schedule], ended))

    def _invoke_again(self, schedule: RegisteredWakeup, failures: int) -> None:
        schedule.handled = False
        if not self._invoke_for_schedule(schedule, failures):
            self._time.after(1_000.0, lambda: self._invoke_again(schedule, failures))
