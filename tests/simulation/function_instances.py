"""Function instances of the AWS engine: processes with the real service in them.

An instance keeps its name. When its process is killed, a new process starts without any memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from chalicelib.aws.message import decode_all
from chalicelib.aws.names import Names
from chalicelib.aws.wakeups import AwsWakeups
from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.attempt_log import AttemptRecord
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Wakeup
from chalicelib.service.attempt import DeliveryPolicy
from chalicelib.service.bulk import Bulk
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.delivery import Delivery, Effects
from chalicelib.service.ports import DueIndex, SweepCutoffs, unmetered
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers
from tests.simulation.aws_clients import QueueClient, ScheduleClient
from tests.simulation.environment import Environment
from tests.simulation.invariants.wakeups import (
    delivery_leaves_a_wakeup,
    sweep_marks_only_queued_wakeups,
    written_timer_has_a_wakeup,
)
from tests.simulation.processes import Process, TaskPool
from tests.simulation.promises import DeliveryProgress, progress_of
from tests.simulation.receivers import SimulatedSender
from tests.simulation.simulated_aws import Invocation, RegisteredWakeup, SimulatedAws
from tests.simulation.storage import Storage
from tests.simulation.virtual_time import VirtualTime

LEASE_MS = 30_000
FUNCTION_TIMEOUT_MS = 25_000.0
"""A function that takes longer is killed, if the fault profile says so."""

MAX_RESTART_MS = 5_000.0
NAMES = Names("simulated")


class FunctionInstance:
    """One instance of a function. ``process`` is replaced each time it is killed."""

    def __init__(self, name: str, env: Environment, storage: Storage, aws: SimulatedAws) -> None:
        self.name = name
        self.invocation: Invocation | None = None
        self._env = env
        self._storage = storage
        self._aws = aws
        self._starts = 0
        self.start()

    @property
    def idle(self) -> bool:
        """Return whether a function can be invoked here."""
        return self.process.alive and self.invocation is None

    def start(self) -> None:
        """Start a new process, with nothing left of the one before."""
        env, self._starts = self._env, self._starts + 1
        skew_ms = (2 * env.rng.random() - 1) * env.profile.skew_ms / 2
        self.process = process = Process(env.time, f"{self.name}.{self._starts}", skew_ms)
        rows, due_index = self._storage.connect(process, env.time, env.faults, env.oracle)
        sqs: Any = QueueClient(self._aws, env.faults)
        scheduler: Any = ScheduleClient(self._aws, env.faults)
        wakeups = ObservedWakeups(sqs, lambda: scheduler, NAMES, process.clock, env.profile.near_s)
        wakeups.observe(env.time)

        def task_pool(_count: int) -> TaskPool:
            return TaskPool(env.time)

        store = WakingTimerStore(rows, wakeups, process.clock, threads=task_pool)
        self.timers = Timers(store, process.clock)
        self.bulk = Bulk(store, self.timers, process.clock, width=4, threads=task_pool)
        self.dead_letters = DeadLetters(
            store, self.timers, process.clock, width=4, threads=task_pool
        )
        self.sweeper = Sweeper(
            ObservedDueIndex(due_index, self._aws),
            wakeups,
            process.clock,
            grace_ms=LEASE_MS,
            budget_ms=45_000,
            threads=task_pool,
        )
        sender = SimulatedSender(env.time, env.faults, env.oracle, env.receivers, process.clock)
        policy = DeliveryPolicy(
            lease_ms=LEASE_MS,
            retry_delays_s=env.retry_delays_s,
            signing_keys=lambda: env.faults.call("signing keys", tuple, lost=no_signing_keys),
        )
        effects = Effects(
            clock=process.clock,
            sleep=lambda seconds: env.time.pause(seconds * 1000),
            random=env.rng.random,
            token=lambda: f"token-{next(env.tokens)}",
            threads=task_pool,
        )
        self.delivery = ObservedDelivery(store, wakeups, sender, policy, effects)
        self.delivery.observe(self, env, self._aws)
        process.on_crash = self.kill

    def kill(self) -> None:
        """Kill the process and start another in a while. Only an event may call this."""
        env = self._env
        env.time.note("is killed", who=self.process.name)
        self.process.kill()
        self._ended(ok=False)
        delay = env.rng.random() * MAX_RESTART_MS if env.faults.enabled else 0.0
        env.time.after(delay, self.start)
        env.time.after(delay, self._aws.deliver)

    def check_wakeup(self, wakeup: Wakeup, since: float) -> None:
        """Check that a timer just written has a wake-up, unless the writer could not register one.

        With clocks that differ, a wake-up may seem due before the row it is for is written.
        """
        row = self._env.stored.row(wakeup.tenant, wakeup.id)
        waits = row is not None and row.next_attempt_at is not None and row.lease is None
        if not waits or row is None or row.version != wakeup.version:
            return
        if progress_of(self._env.time.task).unregistered or self._env.profile.skew_ms:
            return
        registered = self._aws.is_registered(wakeup, besides=None, since=since)
        written_timer_has_a_wakeup(row, registered=registered)

    def invoke(self, invocation: Invocation) -> None:
        """Start to deliver wake-ups."""
        self.invocation = invocation
        self.process.start(lambda: self._deliver(invocation))
        if self._env.profile.function_timeout:
            self._env.time.after(FUNCTION_TIMEOUT_MS, lambda: self._time_out(invocation))

    def _deliver(self, invocation: Invocation) -> None:
        ok = False
        try:
            if invocation.wakeups[0].name is None:
                bodies = [message.body for message in invocation.wakeups]
                self.delivery.deliver_all(decode_all(bodies, unmetered))
                self.delivery.check_undelivered(invocation)
            else:
                self.delivery.deliver(invocation.wakeups[0].wakeup)
            ok = True
        except Unavailable as error:
            self._env.time.note("fails", error.detail)
        self._ended(ok=ok)

    def _ended(self, *, ok: bool) -> None:
        invocation, self.invocation = self.invocation, None
        if invocation is not None:
            invocation.over = True
            self._env.time.after(0, lambda: invocation.ended(ok))

    def _time_out(self, invocation: Invocation) -> None:
        if not invocation.over:
            self._env.time.note("times out", who=self.process.name)
            self.kill()


def no_signing_keys() -> Exception:
    """Return the error of a process that cannot read the signing keys."""
    return Unavailable("No signing key can be read.")


class ObservedWakeups(AwsWakeups):
    """The wake-ups under test. It notes in its task when a wake-up could not be registered."""

    def observe(self, time: VirtualTime) -> None:
        """Set what the observer needs, beside the real constructor."""
        self._time = time

    def wake_at(self, wakeup: Wakeup) -> None:
        try:
            super().wake_at(wakeup)
        except Unavailable:
            progress_of(self._time.task).unregistered = True
            raise


class ObservedDelivery(Delivery):
    """The delivery under test. Each time it returns, its timer must have a wake-up to come."""

    def observe(self, instance: FunctionInstance, env: Environment, aws: SimulatedAws) -> None:
        """Set what the observer needs, beside the real constructor."""
        self._instance = instance
        self._env = env
        self._aws = aws

    def deliver(self, wakeup: Wakeup) -> AttemptRecord | None:
        """Deliver, and check the timer: settled, stale for this wake-up, or with another one."""
        time, invocation = self._env.time, self._instance.invocation
        progress = time.task.context = DeliveryProgress()
        registered = invocation.take(wakeup) if invocation else None
        since = time.now
        try:
            made = super().deliver(wakeup)
        except Unavailable:
            if invocation is not None and registered is not None and not self._is_stale(wakeup):
                invocation.undelivered.append((registered, since))
            raise
        if not (progress.dropped or progress.superseded):
            self._check(wakeup, registered, since)
        if progress.lease is not None and progress.lease.retried:
            following = replace(wakeup, version=wakeup.version + 1)
            self._instance.check_wakeup(following, since)
        if registered is not None:
            registered.handled = True
        return made

    def check_undelivered(self, invocation: Invocation) -> None:
        """Check the timers that a batch could not deliver although it returned normally."""
        for registered, since in invocation.undelivered:
            self._check(registered.wakeup, registered, since)

    def _is_stale(self, wakeup: Wakeup) -> bool:
        row = self._env.stored.row(wakeup.tenant, wakeup.id)
        return row is None or row.next_attempt_at is None or row.version != wakeup.version

    def _check(self, wakeup: Wakeup, delivered: RegisteredWakeup | None, since: float) -> None:
        if not self._is_stale(wakeup):
            registered = self._aws.is_registered(wakeup, besides=delivered, since=since)
            delivery_leaves_a_wakeup(wakeup, registered=registered)


class ObservedDueIndex:
    """The due index under test. A sweep may mark only wake-ups that it has put on the queue."""

    def __init__(self, due_index: DueIndex, aws: SimulatedAws) -> None:
        self._due_index = due_index
        self._aws = aws

    def shards(self) -> Sequence[int]:
        return self._due_index.shards()

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        return self._due_index.find(shard, cutoffs)

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> None:
        sweep_marks_only_queued_wakeups(wakeup, queued=self._aws.was_queued(wakeup))
        self._due_index.mark(wakeup, cutoffs, now)
