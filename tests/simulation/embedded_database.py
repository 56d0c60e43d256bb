"""The embedded engine's database: its disk may be full, and its process may die in any commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from chalicelib.domain.claim import Claim, Claimed, ClaimResult, Reschedule, Settlement
from chalicelib.domain.keyed import KeyedTimer, SetByKey
from chalicelib.domain.timer import NewTimer, Timer
from chalicelib.embedded.database import MEMORY, open_store
from chalicelib.embedded.store import SQLiteTimerStore
from tests.simulation.environment import Environment
from tests.simulation.oracle import Oracle
from tests.simulation.sqlite_storage import StoredSQLiteTimers
from tests.simulation.virtual_time import VirtualTime

WRITES = {"BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT"}


class SimulatedDatabase(StoredSQLiteTimers):
    """One database in memory, which acts as the writer's connection."""

    def __init__(self) -> None:
        super().__init__(open_store(MEMORY))
        self.full = False
        self.uncommitted: list[Callable[[], None]] = []
        """Reports to the oracle, to be made after the commit."""
        self.may_crash: Callable[[], None] = lambda: None
        """Called before and after each commit. Raises ``Killed`` if the process is killed there."""

        self.fills_up: Callable[[], bool] = lambda: False
        """Called before each commit. Tells whether there is no room for that one."""

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    @property
    def total_changes(self) -> int:
        return self._connection.total_changes

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Execute a statement, like the method of a connection."""
        word = statement.split(maxsplit=1)[0]
        if self.full and word in WRITES:
            raise sqlite3.OperationalError("database or disk is full")
        if word == "COMMIT":
            return self._commit()
        if word == "ROLLBACK":
            self.uncommitted.clear()
        return self._connection.execute(statement, parameters)

    def _commit(self) -> sqlite3.Cursor:
        self.may_crash()
        if self.fills_up():
            raise sqlite3.OperationalError("database or disk is full")
        done = self._connection.execute("COMMIT")
        committed, self.uncommitted = self.uncommitted, []
        for tell_oracle in committed:
            tell_oracle()
        self.may_crash()
        return done

    def crash(self) -> None:
        """Lose what is not committed."""
        self.uncommitted.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Do nothing: the database outlives every writer that closes its connection."""


class ObservedStore(SQLiteTimerStore):
    """The writer's store. It tells the oracle of each effect once that is committed."""

    def __init__(self, database: Any, time: VirtualTime, oracle: Oracle) -> None:
        super().__init__(database)
        self._database: SimulatedDatabase = database
        self._time = time
        self._oracle = oracle

    def create(self, new: NewTimer) -> Timer:
        timer = super().create(new)
        self._wrote("create", timer, partial(self._oracle.stored, timer))
        return timer

    def set_by_key(self, wanted: SetByKey) -> KeyedTimer:
        keyed = super().set_by_key(wanted)
        tell = self._oracle.stored if keyed.created else self._oracle.replaced
        self._wrote("set_by_key", keyed.timer, partial(tell, keyed.timer))
        return keyed

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        timer = super().cancel(tenant, timer_id, now)
        self._wrote("cancel", timer, partial(self._oracle.cancelled, tenant, timer_id, now))
        return timer

    def claim(self, claim: Claim) -> ClaimResult:
        result = super().claim(claim)
        if isinstance(result, Claimed):
            self._wrote("claim", result.timer, partial(self._oracle.claimed, claim, result.timer))
        return result

    def settle(self, settlement: Settlement) -> bool:
        granted = super().settle(settlement)
        if granted:
            self._wrote("settle", settlement, partial(self._oracle.settled, settlement))
        return granted

    def reschedule(self, change: Reschedule) -> Timer:
        timer = super().reschedule(change)
        self._wrote("reschedule", timer, partial(self._oracle.rescheduled, change))
        return timer

    def void_leases(self) -> int:
        count = super().void_leases()
        self._wrote("void_leases", count, self._oracle.leases_voided)
        return count

    def _wrote(self, what: str, result: object, tell_oracle: Callable[[], None]) -> None:
        self._time.note(f"store.{what}", result, who="dispatcher")
        self._database.uncommitted.append(tell_oracle)


def simulated_stopwatch(env: Environment) -> Callable[[], float]:
    """Return a stopwatch, in seconds, by which a commit takes as long as the profile says."""
    spent_s = 0.0

    def read() -> float:
        nonlocal spent_s
        spent_s += env.rng.random() * env.profile.commit_ms / 1000
        return spent_s

    return read
