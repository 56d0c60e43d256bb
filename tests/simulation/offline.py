"""Histories of the embedded engine: one machine, whose disk is full and whose clock is set.

The API's processes talk to the dispatcher as over the local socket, one line there and one back.
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
from chalicelib.embedded.waker import ImpliedWaker
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.timers import Timers
from tests.simulation import weather
from tests.simulation.callers import Callers
from tests.simulation.engine import Database, Engine, WallClock, in_place
from tests.simulation.history import MINUTE_MS, History
from tests.simulation.hub import Crew, Hub, Process
from tests.simulation.machines import REBOOT_MS
from tests.simulation.surroundings import Surroundings
from tests.simulation.trace import Told

FRONTS = 2
DELAYS_MS = (0, 2_000, 5_000, 30_000, 120_000)
CONNECT_MS = 5_000.0
ANSWER_MS = 10_000.0
LONGEST_JUMP_MS = 120_000.0
MEDDLE_MS = 15_000.0


def tell(seed: int) -> Told:
    """Run the history of ``seed``."""
    chance = random.Random(seed)
    database = Database()
    around = Surroundings.begin(chance, weather.draw_offline(chance), database)
    with in_place(database, around):
        history = OfflineHistory(around, database)
        try:
            return history.tell(seed)
        finally:
            history.bury()
            database.shut()


class LocalStore(RemoteTimerStore):
    """The store of an API process, whose socket and reader are simulated."""

    def __init__(
        self, around: Surroundings, database: Database, engine: Callable[[], Engine]
    ) -> None:
        super().__init__(DataFolder(Path("/simulated")))
        self._around = around
        self._database = database
        self._engine = engine

    @property
    def _reader(self) -> SQLiteTimerStore:
        """Return a reader, at a moment at which it sees what is committed and nothing else."""
        self._around.hub.pause(self._around.faults.delay())
        while self._database.in_transaction:
            self._around.hub.pause(1.0)
        return self._database.reader

    def _exchange(self, message: bytes) -> bytes:
        hub, faults, weather = self._around.hub, self._around.faults, self._around.weather
        hub.pause(faults.delay())
        if faults.happens(weather.refused, "refused"):
            raise ConnectionRefusedError
        line = self._answer_to(message.removesuffix(b"\n"))
        hub.pause(faults.delay())
        if line is None or faults.happens(weather.unanswered, "unanswered"):
            raise ConnectionResetError
        return line

    def _answer_to(self, line: bytes) -> bytes | None:
        hub = self._around.hub
        task, answers = hub.task, list[bytes | None]()

        def finish(answer: bytes | None) -> None:
            if not answers:
                answers.append(answer)
                hub.after(0, task.resume)

        self._connected().receive(line, finish)
        hub.after(ANSWER_MS, lambda: finish(None))
        if not answers:
            hub.park()
        return answers[0]

    def _connected(self) -> Engine:
        hub = self._around.hub
        deadline = hub.now + CONNECT_MS
        while not self._engine().alive:
            if hub.now >= deadline:
                raise Unavailable("The dispatcher is not running.")
            hub.pause(20.0)
        return self._engine()


class FrontProcess(Process):
    """A process whose clock is the machine's."""

    def __init__(self, hub: Hub, name: str, clock: WallClock) -> None:
        super().__init__(hub, name)
        self._wall = clock

    def clock(self) -> float:
        return self._wall()


class OfflineFront:
    """An API process of the offline server."""

    def __init__(
        self,
        name: str,
        around: Surroundings,
        database: Database,
        clock: WallClock,
        engine: Callable[[], Engine],
    ) -> None:
        self._name = name
        self._around = around
        self._database = database
        self._clock = clock
        self._engine = engine
        self._boots = 0
        self.boot()

    def boot(self) -> None:
        """Start a process."""
        self._boots += 1
        hub = self._around.hub
        self.process: Process = FrontProcess(hub, f"{self._name}.{self._boots}", self._clock)
        store = LocalStore(self._around, self._database, self._engine)
        self.scheduling = Timers(store, ImpliedWaker(), self._clock)
        self.dead_letters = DeadLetters(
            store, self.scheduling, self._clock, width=1, threads=lambda _count: Crew(hub)
        )

    def kill(self) -> None:
        """End the process and start another in a while; to be called by the hub."""
        self._around.hub.note("dies", who=self.process.name)
        self.process.kill()
        self._around.hub.after(self._around.chance.random() * REBOOT_MS, self.boot)

    def check_woken(self, wakeup: Wakeup, since: float) -> None:
        """The write itself wakes the dispatcher."""


class OfflineHistory(History):
    """A history of one machine."""

    def __init__(self, around: Surroundings, database: Database) -> None:
        super().__init__(around)
        self._database = database
        self._clock = WallClock(around.hub)
        self._engines: list[Engine] = []
        self._booting = False
        self._boot()
        self._fronts = [
            OfflineFront(f"api-{number}", around, database, self._clock, lambda: self._engine)
            for number in range(FRONTS)
        ]
        self._callers = Callers(around, self._fronts, DELAYS_MS)

    @property
    def _engine(self) -> Engine:
        return self._engines[-1]

    @property
    def _processes(self) -> Sequence[Process]:
        return [self._engine, *(front.process for front in self._fronts)]

    def _actions(self) -> Mapping[Callable[[], None], float]:
        crash = 0 if self._around.weather.calm else 2
        return {
            **self._callers.actions(),
            self._crash: crash,
            self._crash_front: crash,
            self._crash_all: crash / 2,
        }

    def _begin(self) -> None:
        self._around.hub.after(0, self._meddle)

    def bury(self) -> None:
        """Let go of all processes there were."""
        for engine in self._engines:
            engine.bury()

    def _boot(self) -> None:
        name = f"dispatcher.{len(self._engines) + 1}"
        engine = Engine(name, self._around, self._database, self._clock)
        engine.dies = self._crash
        self._engines.append(engine)
        self._booting = False

    def _crash(self) -> None:
        if self._booting:
            return
        around, self._booting = self._around, True
        around.hub.note("dies", who=self._engine.name)
        self._engine.kill()
        around.hub.after(around.chance.random() * REBOOT_MS, self._boot)

    def _crash_front(self) -> None:
        front = self._around.chance.choice(self._fronts)
        if front.process.alive:
            front.kill()

    def _crash_all(self) -> None:
        self._crash()
        for front in self._fronts:
            if front.process.alive:
                front.kill()

    def _meddle(self) -> None:
        """Fill the disk for a while, or set the clock, now and then."""
        around, weather = self._around, self._around.weather
        part = MEDDLE_MS / MINUTE_MS
        if around.faults.happens(weather.disk_full * part, "disk full"):
            self._engine.fill_disk()
        if around.faults.happens(weather.clock_set * part, "clock set"):
            self._clock.offset_ms += (2 * around.chance.random() - 1) * LONGEST_JUMP_MS
            around.hub.note("clock set", self._clock.offset_ms)
        around.hub.after(MEDDLE_MS, self._meddle)
