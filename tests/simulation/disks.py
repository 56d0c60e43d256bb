"""What outlives every process: the stores' data, and stores on it whose calls may fail.

SQLite fails call by call of the store; DynamoDB call by call of its client, of which one call of
the store makes several. In both, a new timer's id, its wake-up and its row are three steps, with
room between them for everything else to happen.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.domain.errors import TimerNotFound, Unavailable
from chalicelib.domain.timer import NewTimer, Status, Timer, Wakeup
from chalicelib.embedded.database import MEMORY, open_store
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.ports import (
    Arm,
    Claim,
    DueIndex,
    Page,
    Refused,
    Reschedule,
    Settlement,
    SweepCutoffs,
    TimerStore,
)
from tests.simulation.faults import Faults
from tests.simulation.hub import Hub, Process
from tests.simulation.ledger import Broken, Ledger
from tests.support.dynamodb import dynamodb_on_moto, empty_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

PAGE = 100


class Data(Protocol):
    """The timers of one history, as they are: read at once and without fail."""

    def row(self, tenant: str, timer_id: int) -> Timer | None:
        """Return one timer, None if it is not there."""

    def rows(self) -> Sequence[Timer]:
        """Return all timers."""


class Disk(Data, Protocol):
    """Data, and stores on it for processes."""

    def boot(
        self, process: Process, hub: Hub, faults: Faults, ledger: Ledger
    ) -> tuple[TimerStore, DueIndex]:
        """Return the store, and the index for sweeps, as a new process has them."""


class _Store(SQLiteTimerStore):
    """A store in which a timer's id can be taken before its row is written."""

    reserved = 0

    def reserve(self, tenant: str) -> int:
        with self.transaction():
            return super()._next_id(tenant)

    def _next_id(self, tenant: str) -> int:
        return self.reserved


class SQLiteData:
    """The timers of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.reader = SQLiteTimerStore(connection)
        self._connection = connection

    def row(self, tenant: str, timer_id: int) -> Timer | None:
        try:
            return self.reader.get(tenant, timer_id)
        except TimerNotFound:
            return None

    def rows(self) -> Sequence[Timer]:
        keys = self._connection.execute("SELECT tenant, id FROM timers").fetchall()
        return [self.reader.get(tenant, timer_id) for tenant, timer_id in keys]

    def shut(self) -> None:
        """End with the history."""
        self._connection.close()


class SQLiteDisk(SQLiteData):
    """One database in memory, and the marks that sweeps have left."""

    def __init__(self) -> None:
        super().__init__(open_store(MEMORY))
        self._marks: dict[Wakeup, int] = {}

    def boot(
        self, process: Process, hub: Hub, faults: Faults, ledger: Ledger
    ) -> tuple[TimerStore, DueIndex]:
        store = _Store(self._connection)
        return _FaultySQLite(store, self, faults, ledger), _Overdue(store, self._marks, faults)


def _away() -> Exception:
    return Unavailable("The store is away.")


class _FaultySQLite:
    """A ``TimerStore`` on SQLite whose calls take time and may fail."""

    def __init__(self, store: _Store, disk: SQLiteDisk, faults: Faults, ledger: Ledger) -> None:
        self._store = store
        self._disk = disk
        self._faults = faults
        self._ledger = ledger

    def identity(self) -> str:
        return self._store.identity()

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        """Arm between two transactions: so a wake-up may overtake the row that it is for."""
        reserved = self._call("store.next_id", partial(self._store.reserve, new.tenant), new.url)
        armed = arm(Timer.first(new, reserved))
        return self._call("store.create", lambda: self._insert(new, reserved, armed), reserved)

    def get(self, tenant: str, timer_id: int) -> Timer:
        return self._call("store.get", partial(self._store.get, tenant, timer_id), tenant, timer_id)

    def list(self, tenant: str, *, before: int | None, status: Status | None, limit: int) -> Page:
        read = partial(self._store.list, tenant, before=before, status=status, limit=limit)
        return self._call("store.list", read, tenant, before)

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        return self._call(
            "store.cancel", partial(self._cancel, tenant, timer_id, now), tenant, timer_id
        )

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        purge = partial(self._store.purge, tenant, before=before, limit=limit)
        return self._call("store.purge", purge, tenant, before)

    def due(self, now: int, limit: int) -> Sequence[Wakeup]:
        return self._call("store.due", partial(self._store.due, now, limit), now)

    def claim(self, claim: Claim) -> Timer | Refused:
        return self._call("store.claim", lambda: self._claim(claim), claim)

    def settle(self, settlement: Settlement) -> bool:
        return self._call("store.settle", lambda: self._settle(settlement), settlement)

    def reschedule(self, change: Reschedule) -> Timer:
        return self._call("store.reschedule", lambda: self._reschedule(change), change)

    def check(self) -> None:
        self._call("store.check", self._store.check)

    def _call(self, name: str, work: Callable[[], T], *about: object) -> T:
        return self._faults.call(name, work, *about, lost=_away)

    def _insert(self, new: NewTimer, reserved: int, armed: bool) -> Timer:  # noqa: FBT001
        self._store.reserved = reserved
        timer = self._store.create(new, lambda _timer: armed)
        self._ledger.stored(timer)
        return timer

    def _claim(self, claim: Claim) -> Timer | Refused:
        wakeup = claim.wakeup
        before = self._disk.row(wakeup.tenant, wakeup.id)
        result = self._store.claim(claim)
        if isinstance(result, Timer):
            self._ledger.claimed(claim, result)
        else:
            self._ledger.refused(claim, result, before)
        return result

    def _cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        timer = self._store.cancel(tenant, timer_id, now)
        self._ledger.cancelled(tenant, timer_id, now)
        return timer

    def _reschedule(self, change: Reschedule) -> Timer:
        timer = self._store.reschedule(change)
        self._ledger.rescheduled(change)
        return timer

    def _settle(self, settlement: Settlement) -> bool:
        granted = self._store.settle(settlement)
        if granted:
            self._ledger.settled(settlement)
        else:
            self._ledger.too_late()
        return granted


class _Overdue:
    """What a sweep finds on SQLite, where the due index knows of leases, and of no marks."""

    def __init__(self, store: SQLiteTimerStore, marks: dict[Wakeup, int], faults: Faults) -> None:
        self._store = store
        self._marks = marks
        self._faults = faults

    def shards(self) -> Sequence[int]:
        return (0,)

    def find(self, shard: int, moments: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        found = self._faults.call(
            "missed.find", lambda: self._store.due(moments.overdue, PAGE), moments, lost=_away
        )
        yield [wakeup for wakeup in found if self._marks.get(wakeup, 0) < moments.woken]

    def mark(self, wakeup: Wakeup, moments: SweepCutoffs, now: int) -> bool:
        def mark() -> bool:
            new = self._marks.get(wakeup, 0) < moments.woken
            if new:
                self._marks[wakeup] = now
            return new

        return self._faults.call("missed.mark", mark, wakeup, lost=_away)


class DynamoDBDisk:
    """One table, by moto."""

    def __init__(self, client: DynamoDBClient, table: str, chance: random.Random) -> None:
        self._client = client
        self._table = table
        self._chance = chance
        self._store = DynamoDBTimerStore(client, table, lambda: 0.0)

    def boot(
        self, process: Process, hub: Hub, faults: Faults, ledger: Ledger
    ) -> tuple[TimerStore, DueIndex]:
        client: Any = _FaultyDynamoDB(self._client, hub, faults, ledger, self._chance)
        store = DynamoDBTimerStore(
            client, self._table, process.clock, sleep=lambda seconds: hub.pause(seconds * 1000)
        )
        watched: Any = _Watched(store, hub, ledger)
        return watched, DynamoDBDueIndex(client, self._table)

    def row(self, tenant: str, timer_id: int) -> Timer | None:
        try:
            return self._store.get(tenant, timer_id)
        except TimerNotFound:
            return None

    def rows(self) -> Sequence[Timer]:
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table, ConsistentRead=True
        )
        items = [item for page in pages for item in page["Items"] if "url" in item]
        for item in items:
            pending = item["status"] == {"S": "pending"}
            if not pending == ("due_shard" in item) == ("next_attempt_at" in item):
                raise Broken("a timer is in the due index while it is outstanding", item)
        return [rows.timer_of(item) for item in items]


class _Watched:
    """A store on DynamoDB that says which of its operations a call of its client serves."""

    def __init__(self, store: DynamoDBTimerStore, hub: Hub, ledger: Ledger) -> None:
        self._store = store
        self._hub = hub
        self._ledger = ledger

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            task = self._hub.task
            task.operation = (name, *arguments)
            try:
                result = method(*arguments, **options)
            finally:
                task.operation = None
            if name == "settle" and not result:
                self._ledger.too_late()
            if name == "claim" and isinstance(result, Refused):
                self._ledger.refused(arguments[0], result)
            return result

        return call


class _FaultyDynamoDB:
    """boto3's client of DynamoDB, whose calls take time and may fail."""

    def __init__(
        self,
        client: DynamoDBClient,
        hub: Hub,
        faults: Faults,
        ledger: Ledger,
        chance: random.Random,
    ) -> None:
        self._client = client
        self._hub = hub
        self._faults = faults
        self._ledger = ledger
        self._chance = chance

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(**request: Any) -> Any:
            operation = self._hub.task.operation

            def work() -> Any:
                response = method(**request)
                self._applied(operation, name, request, response)
                return _Response(response)

            return self._faults.call(
                f"dynamodb.{name}",
                work,
                _key(request),
                lost=self._lost,
                repeats=True,
                instant=_leases_ids(operation, name),
            )

        return call

    def _lost(self) -> Exception:
        code = self._chance.choice(("ThrottlingException", "InternalServerError", None))
        if code is None:
            return ReadTimeoutError(endpoint_url="https://dynamodb.example")
        return ClientError({"Error": {"Code": code, "Message": ""}}, "Any")

    def _applied(self, operation: Any, name: str, request: Any, response: Any) -> None:
        if operation is None:
            return
        what, *about = operation
        if (what, name) == ("create", "put_item") and "url" in request["Item"]:
            self._ledger.stored(rows.timer_of(request["Item"]))
        elif (what, name) == ("claim", "update_item"):
            self._ledger.claimed(about[0], rows.timer_of(response["Attributes"]))
        elif (what, name) == ("settle", "update_item"):
            self._ledger.settled(about[0])
        elif (what, name) == ("cancel", "delete_item"):
            self._ledger.cancelled(*about)
        elif (what, name) == ("reschedule", "update_item"):
            self._ledger.rescheduled(about[0])


def _leases_ids(operation: Any, name: str) -> bool:
    """Tell whether this call is made under the lock of the process's id leases."""
    return operation is not None and (operation[0], name) == ("create", "update_item")


class _Response(dict[str, Any]):
    """A response that is written down without what is random in it."""

    def __init__(self, response: Any) -> None:
        super().__init__(response)

    def __str__(self) -> str:
        row = self.get("Attributes", {})
        return " ".join(
            f"{name}={next(iter(row[name].values()))}"
            for name in ("version", "attempts", "next_attempt_at", "lease_until")
            if name in row
        )


def _key(request: Any) -> str:
    key = request.get("Key") or request.get("Item")
    if key is None:
        return ""
    return f"{key['pk']['S']}/{key['id']['N']}"


@contextmanager
def sqlite_disks() -> Iterator[Callable[[random.Random], Any]]:
    """Yield what makes a disk for each history."""

    @contextmanager
    def fresh(_chance: random.Random) -> Iterator[Disk]:
        disk = SQLiteDisk()
        try:
            yield disk
        finally:
            disk.shut()

    yield fresh


@contextmanager
def dynamodb_disks() -> Iterator[Callable[[random.Random], Any]]:
    """Yield what makes a disk for each history."""
    shards, rows.SHARDS = rows.SHARDS, 2  # each sweep asks all of them
    try:
        with dynamodb_on_moto() as client:

            @contextmanager
            def fresh(chance: random.Random) -> Iterator[Disk]:
                with empty_table(client) as table:
                    yield DynamoDBDisk(client, table, chance)

            yield fresh
    finally:
        rows.SHARDS = shards
