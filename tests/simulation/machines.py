"""Processes with the service in them, as wiring puts it together. They die, and others start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from chalicelib.aws.message import decode_all
from chalicelib.aws.names import Names
from chalicelib.aws.wakeups import AwsWaker
from chalicelib.domain.attempt_log import AttemptRecord
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Wakeup
from chalicelib.service.attempt import Policy
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.delivery import Delivery, Effects
from chalicelib.service.ports import DueIndex, SweepCutoffs, unmetered
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers
from tests.simulation.disks import Disk
from tests.simulation.hub import Crew, Hub, Process
from tests.simulation.ledger import Broken, Doing, doing
from tests.simulation.platform import Hint, Invocation, Platform, QueueClient, ScheduleClient
from tests.simulation.receivers import SimulatedSender
from tests.simulation.surroundings import Surroundings

LEASE_MS = 30_000
FUNCTION_MS = 25_000.0
"""A function that takes longer is killed, where the weather says so."""

REBOOT_MS = 5_000.0
NAMES = Names("simulated")


class Machine:
    """One place where a process runs. ``name`` stays; the process is another after each death."""

    def __init__(self, name: str, around: Surroundings, disk: Disk, platform: Platform) -> None:
        self.name = name
        self.invocation: Invocation | None = None
        self._around = around
        self._disk = disk
        self._platform = platform
        self._boots = 0
        self.boot()

    @property
    def idle(self) -> bool:
        """Tell whether a function can be invoked here."""
        return self.process.alive and self.invocation is None

    def boot(self) -> None:
        """Start a process: nothing of the one before is left."""
        around, self._boots = self._around, self._boots + 1
        skew_ms = (2 * around.chance.random() - 1) * around.weather.skew_ms / 2
        self.process = process = Process(around.hub, f"{self.name}.{self._boots}", skew_ms)
        store, missed = self._disk.boot(process, around.hub, around.faults, around.ledger)
        sqs: Any = QueueClient(self._platform, around.faults)
        scheduler: Any = ScheduleClient(self._platform, around.faults)
        near_s = around.weather.near_s
        waker = WatchedWaker(sqs, lambda: scheduler, NAMES, process.clock, near_s)
        waker.watch(around.hub)

        def crew(_count: int) -> Crew:
            return Crew(around.hub)

        self.scheduling = Timers(store, waker, process.clock)
        self.dead_letters = DeadLetters(
            store, self.scheduling, process.clock, width=4, threads=crew
        )
        self.sweeper = Sweeper(
            WatchedMissed(missed, self._platform),
            waker,
            process.clock,
            grace_ms=LEASE_MS,
            budget_ms=45_000,
            threads=crew,
        )
        sender = SimulatedSender(
            around.hub, around.faults, around.ledger, around.receivers, process.clock
        )
        policy = Policy(
            lease_ms=LEASE_MS,
            retry_delays_s=around.retry_delays_s,
            signing_keys=lambda: around.faults.call("signing keys", tuple, lost=no_keys),
        )
        world = Effects(
            clock=process.clock,
            sleep=lambda seconds: around.hub.pause(seconds * 1000),
            random=around.chance.random,
            token=lambda: f"token-{next(around.tokens)}",
            threads=crew,
        )
        self.delivery = WatchedDelivery(store, waker, sender, policy, world)
        self.delivery.watch(self, around, self._platform)
        process.dies = self.kill

    def kill(self) -> None:
        """End the process and start another in a while; to be called by the hub."""
        around = self._around
        around.hub.note("dies", who=self.process.name)
        self.process.kill()
        self._ended(well=False)
        delay = around.chance.random() * REBOOT_MS if around.faults.on else 0.0
        around.hub.after(delay, self.boot)
        around.hub.after(delay, self._platform.deliver)

    def check_woken(self, wakeup: Wakeup, since: float) -> None:
        """Check that whoever wrote a timer has left it a wake-up, or knows that he could not.

        Clocks that differ may take a wake-up for due before the row it is for is written.
        """
        row = self._around.disk.row(wakeup.tenant, wakeup.id)
        waits = row is not None and row.next_attempt_at is not None and row.lease_until is None
        if not waits or row is None or row.version != wakeup.version:
            return
        if doing(self._around.hub.task).unwoken or self._around.weather.skew_ms:
            return
        if not self._platform.registered(wakeup, but=None, since=since):
            raise Broken("what is written has a wake-up to come", row)

    def invoke(self, invocation: Invocation) -> None:
        """Begin to deliver wake-ups."""
        self.invocation = invocation
        self.process.start(lambda: self._deliver(invocation))
        if self._around.weather.cut_off:
            self._around.hub.after(FUNCTION_MS, lambda: self._cut_off(invocation))

    def _deliver(self, invocation: Invocation) -> None:
        well = False
        try:
            if invocation.hints[0].name is None:
                bodies = [hint.body for hint in invocation.hints]
                self.delivery.deliver_all(decode_all(bodies, unmetered))
                self.delivery.check_put_back(invocation)
            else:
                self.delivery.deliver(invocation.hints[0].wakeup)
            well = True
        except Unavailable as error:
            self._around.hub.note("fails", error.detail)
        self._ended(well=well)

    def _ended(self, *, well: bool) -> None:
        invocation, self.invocation = self.invocation, None
        if invocation is not None:
            invocation.over = True
            self._around.hub.after(0, lambda: invocation.ended(well))

    def _cut_off(self, invocation: Invocation) -> None:
        if not invocation.over:
            self._around.hub.note("is cut off", who=self.process.name)
            self.kill()


def no_keys() -> Exception:
    """Return what is raised where no key can be read."""
    return Unavailable("No signing key can be read.")


class WatchedWaker(AwsWaker):
    """A waker that says, in the task that asked, that it could not register a wake-up."""

    def watch(self, hub: Hub) -> None:
        """Say where it runs."""
        self._hub = hub

    def wake_at(self, wakeup: Wakeup) -> None:
        try:
            super().wake_at(wakeup)
        except Unavailable:
            doing(self._hub.task).unwoken = True
            raise


class WatchedDelivery(Delivery):
    """The delivery under test, held to what it promises for when it returns."""

    def watch(self, machine: Machine, around: Surroundings, platform: Platform) -> None:
        """Say where it runs."""
        self._machine = machine
        self._around = around
        self._platform = platform

    def deliver(self, wakeup: Wakeup) -> AttemptRecord | None:
        """Deliver; then the timer is settled, void for this wake-up, or woken by another."""
        hub, invocation = self._around.hub, self._machine.invocation
        mine = hub.task.context = Doing()
        hint = invocation.take(wakeup) if invocation else None
        since = hub.now
        try:
            made = super().deliver(wakeup)
        except Unavailable:
            if invocation is not None and hint is not None and not self._void(wakeup):
                invocation.undelivered.append((hint, since))
            raise
        if not (mine.void or mine.superseded):
            self._check(wakeup, hint, since)
        if mine.lease is not None and mine.lease.retried:
            following = replace(wakeup, version=wakeup.version + 1)
            self._machine.check_woken(following, since)
        if hint is not None:
            hint.spent = True
        return made

    def check_put_back(self, invocation: Invocation) -> None:
        """Check, where a batch has ended well, what could not be delivered."""
        for hint, since in invocation.undelivered:
            self._check(hint.wakeup, hint, since)

    def _void(self, wakeup: Wakeup) -> bool:
        row = self._around.disk.row(wakeup.tenant, wakeup.id)
        return row is None or row.next_attempt_at is None or row.version != wakeup.version

    def _check(self, wakeup: Wakeup, hint: Hint | None, since: float) -> None:
        if self._void(wakeup) or self._platform.registered(wakeup, but=hint, since=since):
            return
        raise Broken("a delivery leaves no timer without a wake-up", wakeup)


class WatchedMissed:
    """An index for sweeps in which nothing may be marked that was not sent."""

    def __init__(self, missed: DueIndex, platform: Platform) -> None:
        self._missed = missed
        self._platform = platform

    def shards(self) -> Sequence[int]:
        return self._missed.shards()

    def find(self, shard: int, moments: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        return self._missed.find(shard, moments)

    def mark(self, wakeup: Wakeup, moments: SweepCutoffs, now: int) -> bool:
        if not self._platform.was_registered(wakeup):
            raise Broken("a wake-up is marked once it is sent", wakeup)
        return self._missed.mark(wakeup, moments, now)
