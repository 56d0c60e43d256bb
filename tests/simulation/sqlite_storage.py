"""The AWS engine's storage on SQLite, where each call to the store may fail.

It stands in for DynamoDB because it is much faster. As on DynamoDB, the store creates a timer in
three steps: it takes an id, registers the wake-up and writes the row. Anything may happen between
two steps.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from chalicelib.aws.key_holder import Holder, KeyName, names_of
from chalicelib.aws.waking_store import ArmableStore
from chalicelib.domain.claim import Claim, Claimed, ClaimResult, Reschedule, Settlement
from chalicelib.domain.errors import TimerNotFound, Unavailable
from chalicelib.domain.keyed import Replacement
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import Status, Timer, Wakeup
from chalicelib.embedded.database import MEMORY, open_store
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.ports import DueIndex, DuePage, Page, SweepCutoffs
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.invariants.claims import only_stale_wakeups_are_dropped
from tests.simulation.oracle import Oracle
from tests.simulation.processes import Process
from tests.simulation.storage import NewStorage, Storage
from tests.simulation.virtual_time import VirtualTime
from tests.support.due import all_due
from tests.support.stores import FakeKeys, carry_out, find, give_up_key

T = TypeVar("T")

PAGE = 100


class StoredSQLiteTimers:
    """The stored timers that one connection reads."""

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

    def dispose(self) -> None:
        """Close the connection at the end of the run."""
        self._connection.close()


class SQLiteStorage(StoredSQLiteTimers):
    """One database in memory, and the marks that sweeps left."""

    def __init__(self) -> None:
        super().__init__(open_store(MEMORY))
        self._marks: dict[Wakeup, int] = {}
        self._keys = FakeKeys()

    def connect(
        self, process: Process, time: VirtualTime, faults: FaultInjector, oracle: Oracle
    ) -> tuple[ArmableStore, DueIndex]:
        store = SQLiteTimerStore(self._connection)
        return (
            _FaultySQLiteStore(store, self, self._keys, faults, oracle),
            _FaultyDueIndex(store, self._marks, faults),
        )


@contextmanager
def sqlite_storages() -> Iterator[NewStorage]:
    """Yield a function that opens a new storage for each run."""

    @contextmanager
    def new(_rng: random.Random) -> Iterator[Storage]:
        storage = SQLiteStorage()
        try:
            yield storage
        finally:
            storage.dispose()

    yield new


def _unavailable() -> Exception:
    return Unavailable("The store is away.")


class _FaultyKeys:
    """The items of keys, through calls that may fail."""

    def __init__(self, keys: FakeKeys, faults: FaultInjector) -> None:
        self._keys = keys
        self._faults = faults

    def find(self, name: KeyName) -> Holder | None:
        return self._call("keys.find", partial(self._keys.find, name), name)

    def assign(self, name: KeyName, holder: Holder, *, seen: Holder | None) -> Holder:
        return self._call(
            "keys.assign", partial(self._keys.assign, name, holder, seen=seen), name, holder
        )

    def keep(self, name: KeyName, timer_id: int, until: int) -> None:
        self._call("keys.keep", partial(self._keys.keep, name, timer_id, until), name)

    def lasts(self, holder: Holder, until: int) -> bool:
        return self._keys.lasts(holder, until)

    def _call(self, name: str, work: Callable[[], T], *about: object) -> T:
        return self._faults.call(name, work, *about, lost=_unavailable)


class _FaultySQLiteStore:
    """An ``ArmableStore`` on SQLite whose calls take time and may fail.

    SQLite's due index does not tell armed rows from others, so ``armed`` is not stored.
    """

    def __init__(
        self,
        store: SQLiteTimerStore,
        storage: SQLiteStorage,
        keys: FakeKeys,
        faults: FaultInjector,
        oracle: Oracle,
    ) -> None:
        self.keys = _FaultyKeys(keys, faults)
        self._fake_keys = keys
        self._store = store
        self._storage = storage
        self._faults = faults
        self._oracle = oracle

    def identity(self) -> str:
        return self._store.identity()

    def next_id(self, tenant: str) -> int:
        return self._call("store.next_id", partial(self._store.next_id, tenant), tenant)

    def put(self, timer: Timer, *, armed: bool) -> None:
        # See docs/simulation.md, "What it cannot find".
        self._faults.call(
            "store.put",
            partial(self._insert, timer),
            timer.id,
            lost=_unavailable,
            may_be_late=not names_of(timer),
        )

    def admit_change(self, tenant: str) -> None:
        """Do nothing: there is no rate."""

    def give_back(self, tenant: str, unused: int) -> None:
        """Leave a gap in the ids."""

    def find(self, tenant: str, timer_id: int) -> Timer | None:
        return self._call(
            "store.find", partial(find, self._store, tenant, timer_id), tenant, timer_id
        )

    def give_up_key(self, timer: Timer) -> None:
        self._call("store.give_up_key", partial(give_up_key, self._store, timer), timer.id)

    def replace(self, change: Replacement, *, armed: bool | None) -> Timer:
        return self._call("store.replace", partial(self._replace, change), change)

    def get(self, tenant: str, timer_id: int) -> Timer:
        return self._call("store.get", partial(self._store.get, tenant, timer_id), tenant, timer_id)

    def find_many(self, tenant: str, ids: Sequence[int]) -> Sequence[Timer]:
        return self._call("store.find_many", partial(self._store.find_many, tenant, ids), tenant)

    def list(
        self,
        tenant: str,
        *,
        before: int | None,
        status: Status | None,
        limit: int,
        only: Selection = EVERYTHING,
    ) -> Page:
        read = partial(
            self._store.list, tenant, before=before, status=status, limit=limit, only=only
        )
        return self._call("store.list", read, tenant, before)

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        read = partial(self._store.list_due, tenant, after=after, only=only, limit=limit)
        return self._call("store.list_due", read, tenant)

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        return self._call(
            "store.cancel", partial(self._cancel, tenant, timer_id, now), tenant, timer_id
        )

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        def purge() -> int | None:
            for row in self._storage.rows():
                if row.tenant == tenant:
                    self._mark_removed(row)
            return self._store.purge(tenant, before=before, limit=limit)

        return self._call("store.purge", purge, tenant, before)

    def claim(self, claim: Claim) -> ClaimResult:
        return self._call("store.claim", lambda: self._claim(claim), claim)

    def settle(self, settlement: Settlement, *, armed: bool) -> bool:
        return self._call("store.settle", lambda: self._settle(settlement), settlement)

    def reschedule(self, change: Reschedule, *, armed: bool) -> Timer:
        return self._call("store.reschedule", lambda: self._reschedule(change), change)

    def check(self) -> None:
        self._call("store.check", self._store.check)

    def _call(self, name: str, work: Callable[[], T], *about: object) -> T:
        return self._faults.call(name, work, *about, lost=_unavailable)

    def _insert(self, timer: Timer) -> None:
        self._store.insert(timer)
        self._oracle.stored(timer)

    def _claim(self, claim: Claim) -> ClaimResult:
        wakeup = claim.wakeup
        before = self._storage.row(wakeup.tenant, wakeup.id)
        result = self._store.claim(claim)
        if isinstance(result, Claimed):
            self._oracle.claimed(claim, result.timer)
        else:
            self._oracle.claim_refused(result)
            only_stale_wakeups_are_dropped(claim, result, before)
        return result

    def _cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        timer = self._store.cancel(tenant, timer_id, now)
        self._mark_removed(timer)
        self._oracle.cancelled(tenant, timer_id, now)
        return timer

    def _mark_removed(self, timer: Timer) -> None:
        """Mark the items of a timer's keys, as ``DynamoDBTimerStore`` does."""
        for name in names_of(timer):
            self._fake_keys.mark_removed(name, timer.id)

    def _replace(self, change: Replacement) -> Timer:
        timer = carry_out(self._store, change)
        self._oracle.replaced(timer)
        return timer

    def _reschedule(self, change: Reschedule) -> Timer:
        timer = self._store.reschedule(change)
        self._oracle.rescheduled(change)
        return timer

    def _settle(self, settlement: Settlement) -> bool:
        granted = self._store.settle(settlement)
        if granted:
            self._oracle.settled(settlement)
        else:
            self._oracle.settle_refused()
        return granted


class _FaultyDueIndex:
    """The ``DueIndex`` of a sweep. SQLite's own index has no marks: they are kept beside it."""

    def __init__(
        self, store: SQLiteTimerStore, marks: dict[Wakeup, int], faults: FaultInjector
    ) -> None:
        self._store = store
        self._marks = marks
        self._faults = faults

    def shards(self) -> Sequence[int]:
        return (0,)

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        found = self._faults.call(
            "due_index.find",
            lambda: all_due(self._store, cutoffs.overdue, PAGE),
            cutoffs,
            lost=_unavailable,
        )
        yield [wakeup for wakeup in found if self._marks.get(wakeup, 0) < cutoffs.woken]

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> None:
        def mark() -> None:
            if self._marks.get(wakeup, 0) < cutoffs.woken:
                self._marks[wakeup] = now

        self._faults.call("due_index.mark", mark, wakeup, lost=_unavailable)
