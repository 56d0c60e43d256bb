"""The process of the embedded engine: the real dispatcher, writer and server on one database.

It dies with its event loop, its writer and all tasks; what it had committed stays.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.retry import succeeded
from chalicelib.domain.timer import NewTimer, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded import dispatcher as dispatcher_module
from chalicelib.embedded import writer as writer_module
from chalicelib.embedded.database import MEMORY, open_store
from chalicelib.embedded.dispatcher import Dispatcher, DispatcherPolicy
from chalicelib.embedded.ipc.server import WriteServer
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from chalicelib.service.ports import Arm, Claim, Refused, Reschedule, Settlement
from tests.simulation.disks import SQLiteData
from tests.simulation.hub import Hub, Killed, Process
from tests.simulation.ledger import Broken, Doing, Ledger, Promise, Sent
from tests.simulation.loop import HubLoop
from tests.simulation.machines import LEASE_MS
from tests.simulation.receivers import DEADLINE_S
from tests.simulation.surroundings import Surroundings

FULL_MS = 20_000.0
FULL_WHILE_SENDING = 0.1
"""How often the disk is full when a call is over, as a part of how often it is in a minute."""


class Database(SQLiteData):
    """One database in memory, as the writer has it open. It may be full, and die in a commit."""

    def __init__(self) -> None:
        super().__init__(open_store(MEMORY))
        self.full = False
        self.written: list[Callable[[], None]] = []
        """What the ledger is told once it is committed."""
        self.dies: Callable[[], bool] = lambda: False
        """Asked around each commit whether the process dies there."""

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
