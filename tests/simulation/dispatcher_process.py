"""The dispatcher's process of the embedded engine: the real dispatcher, writer and write server.

When it is killed, its event loop, its writer and all tasks are gone. Committed rows stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.dispatcher import Dispatcher, DispatcherPolicy
from chalicelib.embedded.ipc.server import WriteServer
from chalicelib.embedded.writer import Writer
from tests.simulation.egress_audit import EgressAudit, egress_limits
from tests.simulation.embedded_database import ObservedStore, SimulatedDatabase, simulated_stopwatch
from tests.simulation.environment import Environment
from tests.simulation.event_loop import VirtualTimeLoop
from tests.simulation.function_instances import LEASE_MS
from tests.simulation.invariants.sending import (
    dispatcher_calls_once_at_a_time,
    dispatcher_records_every_success,
)
from tests.simulation.processes import Process
from tests.simulation.promises import DeliveryProgress, Promise, SentWebhook
from tests.simulation.receivers import DEADLINE_S
from tests.simulation.virtual_time import Killed, VirtualTime

MAX_DISK_FULL_MS = 20_000.0
DISK_FULL_WHILE_SENDING = 0.1
"""The probability that the disk fills up during a call, as a share of that per minute."""

DISK_FULL_IN_COMMIT = 0.05
"""The probability that a commit finds no room, as a share of that per minute."""


class WallClock:
    """The wall clock of the one machine, which may be set forwards or back."""

    def __init__(self, time: VirtualTime) -> None:
        self.offset_ms = 0.0
        self._time = time

    def __call__(self) -> float:
        return self._time.now + self.offset_ms


Finish = Callable[[bytes | None], None]
"""Takes the response to a request on the socket: None if the connection ends without one."""


class DispatcherProcess(Process):
    """The process that owns the database: dispatcher, writer and server on one event loop."""

    def __init__(
        self, name: str, env: Environment, database: SimulatedDatabase, clock: WallClock
    ) -> None:
        super().__init__(env.time, name)
        self._env = env
        self._database = database
        self._open_requests: list[Finish] = []
        self._loop = VirtualTimeLoop(env.time, self._work_ms)  # type: ignore[abstract]
        database.may_crash = lambda: self.may_crash("in a commit")
        database.fills_up = lambda: env.faults.occurs(
            env.profile.disk_full * DISK_FULL_IN_COMMIT, "disk full in a commit"
        )
        policy = DispatcherPolicy(
            lease_ms=LEASE_MS,
            retry_delays_s=env.retry_delays_s,
            signing_keys=self._signing_keys,
            retention_days=7.0,
            egress=egress_limits(env),
        )
        sender = EmbeddedSender(self, env, clock, EgressAudit(policy.egress, lambda: env.time.now))
        with self._loop.running():
            store = ObservedStore(database, env.time, env.oracle)
            writer = Writer(store, stopwatch=simulated_stopwatch(env))
            self._dispatcher = Dispatcher(
                writer,
                sender,
                policy,
                clock,
                random=env.rng.random,
                token=lambda: f"token-{next(env.tokens)}",
            )
            self._server = WriteServer(writer, self._dispatcher.wake_at)
            self._loop.create_task(self._dispatcher.run())
            self._loop.create_task(self._dispatcher.maintain_store())

    @property
    def busy(self) -> bool:
        return bool(self._dispatcher._calls)

    def kill(self) -> None:
        self.alive = self._loop.alive = False
        self._database.crash()
        for finish in self._open_requests:
            finish(None)
        self._open_requests.clear()

    def crash(self) -> NoReturn:
        self.alive = self._loop.alive = False
        self._env.time.after(0, self.on_crash)
        raise Killed

    def discard(self) -> None:
        """Free the event loop's tasks at the end of the run."""
        self._loop.discard()

    def receive(self, line: bytes, finish: Finish) -> None:
        """Take a request from the socket."""
        self._open_requests.append(finish)
        with self._loop.running():
            self._server.handle(line, finish)

    def may_crash(self, where: str) -> None:
        """Draw whether the process is killed here."""
        if self._env.faults.occurs(self._env.profile.killed / 2, f"killed {where}"):
            self.crash()

    def fill_disk(self) -> None:
        """Make writes fail for a while."""
        self._env.time.note("disk full")
        self._database.full = True
        self._env.time.after(self._env.rng.random() * MAX_DISK_FULL_MS, self._free_disk)

    def _free_disk(self) -> None:
        self._env.time.note("disk has room")
        self._database.full = False

    def _work_ms(self) -> float:
        return self._env.rng.random() * self._env.profile.commit_ms

    def _signing_keys(self) -> Sequence[bytes]:
        if self._env.faults.occurs(self._env.profile.refused, "no signing keys"):
            raise Unavailable("No signing key can be read.")
        return ()


class EmbeddedSender:
    """The ``AsyncSender`` of one dispatcher process. It tells the oracle all it does."""

    def __init__(
        self, process: DispatcherProcess, env: Environment, clock: WallClock, audit: EgressAudit
    ) -> None:
        self._audit = audit
        self._process = process
        self._env = env
        self._clock = clock
        self._last_sent: dict[int, SentWebhook] = {}
        """The latest call of this process for each timer, by the id() of its promise."""

    async def send(self, call: Call) -> Outcome:
        """Call the receiver, within the deadline."""
        env, oracle = self._env, self._env.oracle
        lease = oracle.latest_lease(call)
        promise, sent = oracle.webhook_starts(call, self._clock(), DeliveryProgress(lease=lease))
        if lease.sent is sent:
            self._check_last(promise)
            self._last_sent[id(promise)] = sent
        env.time.note("sends", call.url, who="dispatcher")
        with self._audit.call(call):
            return await self._call(call, sent)

    async def _call(self, call: Call, sent: SentWebhook) -> Outcome:
        env, oracle, process = self._env, self._env.oracle, self._process
        await asyncio.sleep(env.faults.delay() / 1000)
        process.may_crash("while sending")
        if env.faults.occurs(env.profile.disk_full * DISK_FULL_WHILE_SENDING, "disk full"):
            process.fill_disk()
        arrived, outcome = env.receivers.take(call.url)
        if arrived:
            oracle.webhook_received()
        env.time.note("has sent", call.url, outcome, who="dispatcher")
        process.may_crash("while sending")
        no_response = arrived and outcome.error is not None
        deadline_s = call.deadline_s(DEADLINE_S)
        await asyncio.sleep(deadline_s if no_response else env.faults.delay() / 1000)
        sent.outcome = outcome
        return outcome

    def _check_last(self, promise: Promise) -> None:
        last = self._last_sent.get(id(promise))
        if last is not None:
            dispatcher_calls_once_at_a_time(promise, last)
            dispatcher_records_every_success(promise, last)
