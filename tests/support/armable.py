"""Rows of timers that say whether they are armed, with the test in place of the wake-ups."""

from __future__ import annotations

from chalicelib.aws.dynamodb.rows import ARMED, timer_key
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.aws.waking_store import ArmableStore
from chalicelib.domain.claim import Reschedule, Settlement
from chalicelib.domain.timer import NewTimer, Timer
from chalicelib.embedded.store import SQLiteTimerStore


class ArmableSQLite:
    """What ``DynamoDBTimerStore`` is to the AWS engine, on SQLite in memory."""

    def __init__(self, sqlite: SQLiteTimerStore | None = None) -> None:
        self.sqlite = sqlite or SQLiteTimerStore.in_memory()
        self.armed: dict[tuple[str, int], bool] = {}
        self.identity = self.sqlite.identity
        self.get = self.sqlite.get
        self.list = self.sqlite.list
        self.cancel = self.sqlite.cancel
        self.purge = self.sqlite.purge
        self.claim = self.sqlite.claim
        self.check = self.sqlite.check
        self.next_id = self.sqlite.next_id

    def put(self, timer: Timer, *, armed: bool) -> None:
        self.sqlite.insert(timer)
        self.armed[timer.tenant, timer.id] = armed

    def settle(self, settlement: Settlement, *, armed: bool) -> bool:
        self.armed[settlement.tenant, settlement.id] = armed
        return self.sqlite.settle(settlement)

    def reschedule(self, change: Reschedule, *, armed: bool) -> Timer:
        timer = self.sqlite.reschedule(change)
        self.armed[change.tenant, change.id] = armed
        return timer

    def close(self) -> None:
        self.sqlite.close()


def is_armed(rows: ArmableStore, timer: Timer) -> bool:
    """Tell what the row of a timer says."""
    if isinstance(rows, ArmableSQLite):
        return rows.armed[timer.tenant, timer.id]
    assert isinstance(rows, DynamoDBTimerStore)
    row = rows._items.read(timer_key(timer.tenant, timer.id))
    assert row
    return row["due_shard"]["S"].startswith(ARMED)


class HandArmedStore:
    """A ``TimerStore`` and ``ClaimStore`` that writes rows and registers no wake-up.

    Every row is written as ``armed`` says, which a test may change.
    """

    def __init__(self, rows: ArmableStore) -> None:
        self.rows = rows
        self.armed = True
        self.identity = rows.identity
        self.get = rows.get
        self.list = rows.list
        self.cancel = rows.cancel
        self.purge = rows.purge
        self.claim = rows.claim
        self.check = rows.check

    def create(self, new: NewTimer) -> Timer:
        timer = Timer.first(new, self.rows.next_id(new.tenant))
        self.rows.put(timer, armed=self.armed)
        return timer

    def settle(self, settlement: Settlement) -> bool:
        return self.rows.settle(settlement, armed=self.armed)

    def reschedule(self, change: Reschedule) -> Timer:
        return self.rows.reschedule(change, armed=self.armed)
