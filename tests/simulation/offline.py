"""Histories of the embedded engine: the real dispatcher, writer and API on one database.

The dispatcher's process dies with its event loop, its writer and all tasks; what it had committed
stays. The API's processes talk to it as over the local socket, one line there and one back.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

from chalicelib.dead_letters import DeadLetters
from chalicelib.embedded import dispatcher as dispatcher_module
from chalicelib.embedded import writer as writer_module
from chalicelib.embedded.client import RemoteTimerStore
from chalicelib.embedded.database import MEMORY, open_store
from chalicelib.embedded.dispatcher import Dispatcher, DispatcherPolicy
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.server import WriteServer
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.waker import ImpliedWaker
from chalicelib.embedded.writer import Writer
from chalicelib.errors import TimerNotFound, Unavailable
from chalicelib.ports import Arm, Call, Claim, Outcome, Refused, Reschedule, Settlement
from chalicelib.retry import succeeded
from chalicelib.scheduling import Scheduling
from chalicelib.timer import NewTimer, Timer, Wakeup
from tests.simulation import weather
from tests.simulation.callers import Callers
from tests.simulation.history import MINUTE_MS, History
from tests.simulation.hub import Crew, Hub, Killed, Process
from tests.simulation.ledger import Broken, Doing, Ledger, Promise, Sent
from tests.simulation.loop import HubLoop
from tests.simulation.machines import LEASE_MS, REBOOT_MS
from tests.simulation.receivers import DEADLINE_S
from tests.simulation.surroundings import Surroundings
from tests.simulation.trace import Told

FRONTS = 2
DELAYS_MS = (0, 2_000, 5_000, 30_000, 120_000)
CONNECT_MS = 5_000.0
ANSWER_MS = 10_000.0
FULL_MS = 20_000.0
LONGEST_JUMP_MS = 120_000.0
MEDDLE_MS = 15_000.0
FULL_WHILE_SENDING = 0.1
"""How often the disk is full when a call is over, as a part of how often it is in a minute."""


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


class Database:
    """One database in memory, as the writer has it open. It may be full, and die in a commit."""

    def __init__(self) -> None:
        self.full = False
        self.written: list[Callable[[], None]] = []
        """What the ledger is told once it is committed."""
        self.dies: Callable[[], bool] = lambda: False
        """Asked around each commit whether the process dies there."""
        self._connection = open_store(MEMORY)
        self.reader = SQLiteTimerStore(self._connection)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Carry out a statement, as a connection does."""
        word = statement.split(maxsplit=1)[0]
        if self.full and word in {"BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT"}:
            raise sqlite3.OperationalError("database or disk is full")
        if word == "COMMIT":
            return self._commit()
        if word == "ROLLBACK":
            self.written.clear()
        return self._connection.execute(statement, parameters)

    def _commit(self) -> sqlite3.Cursor:
        self._may_die()
        done = self._connection.execute("COMMIT")
        written, self.written = self.written, []
        for tell_ledger in written:
            tell_ledger()
        self._may_die()
        return done

    def _may_die(self) -> None:
        if self.dies():
            raise Killed

    def crash(self) -> None:
        """Lose what is not committed."""
        self.written.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Stay: it outlives every writer."""

    def shut(self) -> None:
        """End with the history."""
        self._connection.close()

    def row(self, tenant: str, timer_id: int) -> Timer | None:
        try:
            return self.reader.get(tenant, timer_id)
        except TimerNotFound:
            return None

    def rows(self) -> Sequence[Timer]:
        keys = self._connection.execute("SELECT tenant, id FROM timers").fetchall()
        return [self.reader.get(tenant, timer_id) for tenant, timer_id in keys]


class WatchedStore(SQLiteTimerStore):
    """The writer's store, which tells the ledger what it did, once that is committed."""

    def __init__(self, database: Any, hub: Hub, ledger: Ledger) -> None:
        super().__init__(database)
        self._database: Database = database
        self._hub = hub
        self._ledger = ledger

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        timer = super().create(new, arm)
        self._did("create", timer, partial(self._ledger.stored, timer))
        return timer

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        timer = super().cancel(tenant, timer_id, now)
        self._did("cancel", timer, partial(self._ledger.cancelled, tenant, timer_id, now))
        return timer

    def claim(self, claim: Claim) -> Timer | Refused:
        result = super().claim(claim)
        if isinstance(result, Timer):
            self._did("claim", result, partial(self._ledger.claimed, claim, result))
        return result

    def settle(self, settlement: Settlement) -> bool:
        granted = super().settle(settlement)
        if granted:
            self._did("settle", settlement, partial(self._ledger.settled, settlement))
        return granted

    def reschedule(self, change: Reschedule) -> Timer:
        timer = super().reschedule(change)
        self._did("reschedule", timer, partial(self._ledger.rescheduled, change))
        return timer

    def void_leases(self) -> int:
        count = super().void_leases()
        self._did("void_leases", count, self._ledger.voided)
        return count

    def _did(self, what: str, result: object, tell_ledger: Callable[[], None]) -> None:
        self._hub.note(f"store.{what}", result, who="dispatcher")
        self._database.written.append(tell_ledger)


class WallClock:
    """The clock of the one machine, which may be set."""

    def __init__(self, hub: Hub) -> None:
        self.offset_ms = 0.0
        self._hub = hub

    def __call__(self) -> float:
        return self._hub.now + self.offset_ms


Finish = Callable[[bytes | None], None]
"""Take the answer to a request, None if there will be none."""


class Engine(Process):
    """The process that owns the database: dispatcher, writer and server on one event loop."""

    def __init__(
        self, name: str, around: Surroundings, database: Database, clock: WallClock
    ) -> None:
        super().__init__(around.hub, name)
        self._around = around
        self._database = database
        self._open: list[Finish] = []
        self._loop = HubLoop(around.hub, self._work_ms)  # type: ignore[abstract]
        database.dies = self._may_die
        policy = DispatcherPolicy(
            lease_ms=LEASE_MS,
            retry_delays_s=around.retry_delays_s,
            signing_keys=self._keys,
            retention_days=7.0,
            max_in_flight=100 if around.weather.calm else around.chance.choice((1, 3, 100)),
        )
        sender = OfflineSender(self, around, clock)
        with self._loop.running():
            writer = Writer(MEMORY)
            self._dispatcher = Dispatcher(writer, sender, policy, clock, around.chance.random)
            self._server = WriteServer(writer, self._dispatcher.wake_at)
            self._loop.create_task(self._dispatcher.run())
            self._loop.create_task(self._dispatcher.keep_house())

    @property
    def busy(self) -> bool:
        return bool(self._dispatcher._in_flight)

    def kill(self) -> None:
        self.alive = self._loop.alive = False
        self._database.crash()
        for finish in self._open:
            finish(None)
        self._open.clear()

    def end(self) -> NoReturn:
        """Die from within."""
        self.alive = self._loop.alive = False
        self._around.hub.after(0, self.dies)
        raise Killed

    def bury(self) -> None:
        """Let go of everything."""
        self._loop.bury()

    def receive(self, line: bytes, finish: Finish) -> None:
        """Take a request from the socket."""
        self._open.append(finish)
        with self._loop.running():
            self._server.handle(line, finish)

    def may_end(self, where: str) -> None:
        """Die here, perhaps."""
        if self._around.faults.happens(self._around.weather.killed / 2, f"killed {where}"):
            self.end()

    def fill_disk(self) -> None:
        """Leave no room on the disk for a while."""
        self._around.hub.note("disk full")
        self._database.full = True
        self._around.hub.after(self._around.chance.random() * FULL_MS, self._make_room)

    def _make_room(self) -> None:
        self._around.hub.note("disk has room")
        self._database.full = False

    def _may_die(self) -> bool:
        self.may_end("in a commit")
        return False

    def _work_ms(self) -> float:
        return self._around.chance.random() * self._around.weather.commit_ms

    def _keys(self) -> Sequence[bytes]:
        if self._around.faults.happens(self._around.weather.refused, "no keys"):
            raise Unavailable("No signing key can be read.")
        return ()


class OfflineSender:
    """An ``AsyncSender`` of one process."""

    def __init__(self, engine: Engine, around: Surroundings, clock: WallClock) -> None:
        self._engine = engine
        self._around = around
        self._clock = clock
        self._calls: dict[int, Sent] = {}
        """What this process has sent last, by timer."""

    async def send(self, call: Call) -> Outcome:
        """Call the receiver, within the deadline."""
        around, ledger = self._around, self._around.ledger
        lease = ledger.latest_lease(call)
        promise, sent = ledger.starts(call, self._clock(), Doing(lease=lease))
        if lease.sent is sent:
            self._check_last(promise)
            self._calls[id(promise)] = sent
        around.hub.note("sends", call.url, who="dispatcher")
        await asyncio.sleep(around.faults.delay() / 1000)
        self._engine.may_end("while sending")
        if around.faults.happens(around.weather.disk_full * FULL_WHILE_SENDING, "disk full"):
            self._engine.fill_disk()
        arrived, outcome = around.receivers.take(call.url)
        if arrived:
            ledger.received(promise, sent)
        around.hub.note("has sent", call.url, outcome, who="dispatcher")
        self._engine.may_end("while sending")
        silent = arrived and outcome.error is not None
        longest_s = call.deadline_s(DEADLINE_S)
        await asyncio.sleep(longest_s if silent else around.faults.delay() / 1000)
        sent.outcome = outcome
        return outcome

    def _check_last(self, promise: Promise) -> None:
        """Check that nothing is called again before what came of the last call is written."""
        last = self._calls.get(id(promise))
        if last is None or last in promise.recorded:
            return
        if last.outcome is None:
            raise Broken("no dispatcher calls for one timer twice at once", promise)
        if succeeded(last.outcome):
            raise Broken("a success in hand is written, however long that takes", promise)


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
        self.scheduling = Scheduling(store, ImpliedWaker(), self._clock)
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


@contextmanager
def in_place(database: Database, around: Surroundings) -> Iterator[None]:
    """Have the writer use ``database`` and a clock of its own, and tokens that are counted."""
    ticks = itertools.count(1)
    spent_s = 0.0

    def perf_counter() -> float:
        nonlocal spent_s
        spent_s += around.chance.random() * around.weather.commit_ms / 1000
        return spent_s

    def store(_connection: object, _rate: object) -> WatchedStore:
        return WatchedStore(database, around.hub, around.ledger)

    with (
        mock.patch.object(writer_module, "open_store", return_value=database),
        mock.patch.object(writer_module, "SQLiteTimerStore", store),
        mock.patch.object(writer_module, "time", SimpleNamespace(perf_counter=perf_counter)),
        mock.patch.object(
            dispatcher_module,
            "secrets",
            SimpleNamespace(token_hex=lambda _bytes: f"token-{next(ticks)}"),
        ),
    ):
        yield
