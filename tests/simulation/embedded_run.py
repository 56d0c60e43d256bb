"""Runs of the embedded engine: one machine, whose disk may be full and whose clock may be set.

The API's processes send requests to the dispatcher as over its local socket: a request is one line,
and so is its response.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Wakeup
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc.client import RemoteTimerStore
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.bulk import Bulk
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.timers import Timers
from tests.simulation import fault_profile
from tests.simulation.clients import Clients
from tests.simulation.dispatcher_process import DispatcherProcess, WallClock
from tests.simulation.embedded_database import SimulatedDatabase
from tests.simulation.environment import Environment
from tests.simulation.function_instances import MAX_RESTART_MS
from tests.simulation.processes import Process, TaskPool
from tests.simulation.run import MINUTE_MS, Run
from tests.simulation.trace import RunResult
from tests.simulation.virtual_time import VirtualTime

API_PROCESSES = 2
MAX_DELAYS_MS = (0, 2_000, 5_000, 30_000, 120_000)
CONNECT_TIMEOUT_MS = 5_000.0
RESPONSE_TIMEOUT_MS = 10_000.0
MAX_CLOCK_STEP_MS = 120_000.0
MACHINE_FAULTS_EVERY_MS = 15_000.0


def execute(seed: int) -> RunResult:
    """Execute the run of ``seed``."""
    rng = random.Random(seed)
    database = SimulatedDatabase()
    env = Environment.create(rng, fault_profile.draw_for_embedded(rng), database)
    run = EmbeddedRun(env, database)
    try:
        return run.execute(seed)
    finally:
        run.discard()
        database.dispose()


class SimulatedRemoteStore(RemoteTimerStore):
    """The store of an API process, whose socket and reader are simulated."""

    def __init__(
        self,
        env: Environment,
        database: SimulatedDatabase,
        dispatcher: Callable[[], DispatcherProcess],
    ) -> None:
        super().__init__(DataFolder(Path("/simulated")))
        self._env = env
        self._database = database
        self._dispatcher = dispatcher

    @property
    def _reader(self) -> SQLiteTimerStore:
        """Wait until no transaction is open, so that the reader sees only what is committed."""
        self._env.time.pause(self._env.faults.delay())
        while self._database.in_transaction:
            self._env.time.pause(1.0)
        return self._database.reader

    def _exchange(self, message: bytes) -> bytes:
        time, faults, profile = self._env.time, self._env.faults, self._env.profile
        time.pause(faults.delay())
        if faults.occurs(profile.refused, "refused"):
            raise ConnectionRefusedError
        line = self._response_to(message.removesuffix(b"\n"))
        time.pause(faults.delay())
        if line is None or faults.occurs(profile.response_lost, "response lost"):
            raise ConnectionResetError
        return line

    def _response_to(self, line: bytes) -> bytes | None:
        time = self._env.time
        task, responses = time.task, list[bytes | None]()

        def finish(response: bytes | None) -> None:
            if not responses:
                responses.append(response)
                time.after(0, task.resume)

        self._reach_dispatcher().receive(line, finish)
        time.after(RESPONSE_TIMEOUT_MS, lambda: finish(None))
        if not responses:
            time.suspend()
        return responses[0]

    def _reach_dispatcher(self) -> DispatcherProcess:
        time = self._env.time
        deadline = time.now + CONNECT_TIMEOUT_MS
        while not self._dispatcher().alive:
            if time.now >= deadline:
                raise Unavailable("The dispatcher is not running.")
            time.pause(20.0)
        return self._dispatcher()


class ApiProcess(Process):
    """A process whose clock is the wall clock of the machine."""

    def __init__(self, time: VirtualTime, name: str, clock: WallClock) -> None:
        super().__init__(time, name)
        self._wall_clock = clock

    def clock(self) -> float:
        return self._wall_clock()


class EmbeddedApi:
    """One of the API's workers. ``process`` is replaced each time it is killed."""

    def __init__(
        self,
        name: str,
        env: Environment,
        database: SimulatedDatabase,
        clock: WallClock,
        dispatcher: Callable[[], DispatcherProcess],
    ) -> None:
        self._name = name
        self._env = env
        self._database = database
        self._clock = clock
        self._dispatcher = dispatcher
        self._starts = 0
        self.start()

    def start(self) -> None:
        """Start a new process, with nothing left of the one before."""
        self._starts += 1
        time = self._env.time
        self.process: Process = ApiProcess(time, f"{self._name}.{self._starts}", self._clock)
        store = SimulatedRemoteStore(self._env, self._database, self._dispatcher)
        self.timers = Timers(store, self._clock)
        self.dead_letters = DeadLetters(
            store, self.timers, self._clock, width=1, threads=lambda _count: TaskPool(time)
        )
        self.bulk = Bulk(
            store, self.timers, self._clock, width=1, threads=lambda _count: TaskPool(time)
        )

    def kill(self) -> None:
        """Kill the process and start another in a while. Only an event may call this."""
        self._env.time.note("is killed", who=self.process.name)
        self.process.kill()
        self._env.time.after(self._env.rng.random() * MAX_RESTART_MS, self.start)

    def check_wakeup(self, wakeup: Wakeup, since: float) -> None:
        """Check nothing: the write itself wakes the dispatcher."""


class EmbeddedRun(Run):
    """A run of one machine."""

    def __init__(self, env: Environment, database: SimulatedDatabase) -> None:
        super().__init__(env)
        self._database = database
        self._clock = WallClock(env.time)
        self._dispatchers: list[DispatcherProcess] = []
        """Every dispatcher of the run; the last one is alive, or was killed last."""
        self._restarting = False
        self._start_dispatcher()
        self._apis = [
            EmbeddedApi(f"api-{number}", env, database, self._clock, lambda: self._dispatcher)
            for number in range(API_PROCESSES)
        ]
        self._clients = Clients(env, self._apis, MAX_DELAYS_MS)

    @property
    def _dispatcher(self) -> DispatcherProcess:
        return self._dispatchers[-1]

    @property
    def _processes(self) -> Sequence[Process]:
        return [self._dispatcher, *(api.process for api in self._apis)]

    def _actions(self) -> Mapping[Callable[[], None], float]:
        crash = 0 if self._env.profile.fault_free else 2
        return {
            **self._clients.actions(),
            self._clients.create_many: crash * 2,
            self._crash_dispatcher: crash,
            self._crash_api: crash,
            self._crash_all: crash / 2,
        }

    def _start(self) -> None:
        self._env.time.after(0, self._inject_machine_faults)

    def discard(self) -> None:
        """Free what the dispatchers of the run hold."""
        for dispatcher in self._dispatchers:
            dispatcher.discard()

    def _start_dispatcher(self) -> None:
        name = f"dispatcher.{len(self._dispatchers) + 1}"
        dispatcher = DispatcherProcess(name, self._env, self._database, self._clock)
        dispatcher.on_crash = self._crash_dispatcher
        self._dispatchers.append(dispatcher)
        self._restarting = False

    def _crash_dispatcher(self) -> None:
        if self._restarting:
            return
        env, self._restarting = self._env, True
        env.time.note("is killed", who=self._dispatcher.name)
        self._dispatcher.kill()
        env.time.after(env.rng.random() * MAX_RESTART_MS, self._start_dispatcher)

    def _crash_api(self) -> None:
        api = self._env.rng.choice(self._apis)
        if api.process.alive:
            api.kill()

    def _crash_all(self) -> None:
        self._crash_dispatcher()
        for api in self._apis:
            if api.process.alive:
                api.kill()

    def _inject_machine_faults(self) -> None:
        """Draw, every 15 s, whether the disk is full for a while and whether the clock is set."""
        env, profile = self._env, self._env.profile
        share = MACHINE_FAULTS_EVERY_MS / MINUTE_MS
        if env.faults.occurs(profile.disk_full * share, "disk full"):
            self._dispatcher.fill_disk()
        if env.faults.occurs(profile.clock_set * share, "clock set"):
            self._clock.offset_ms += (2 * env.rng.random() - 1) * MAX_CLOCK_STEP_MS
            env.time.note("clock set", self._clock.offset_ms)
        env.time.after(MACHINE_FAULTS_EVERY_MS, self._inject_machine_faults)
