"""Fake timer stores of the AWS engine, for tests that need no DynamoDB or no wake-ups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from chalicelib.aws.dynamodb.rows import ARMED, timer_key
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.aws.key_holder import Holder, KeyName
from chalicelib.aws.waking_store import ArmableStore, WakingTimerStore
from chalicelib.domain.claim import Reschedule, Settlement
from chalicelib.domain.errors import TimerChanged
from chalicelib.domain.keyed import Replacement
from chalicelib.domain.timer import Timer
from chalicelib.embedded.database import MEMORY, open_store
from chalicelib.embedded.rows import replacement
from chalicelib.embedded.store import SQLiteTimerStore
from tests.support.clock import ManualClock
from tests.support.wakeups import RecordingWakeups


class FakeKeys:
    """Stands in for ``KeyItems``: the holders of keys, in memory, which never expire."""

    def __init__(self) -> None:
        self.holders: dict[KeyName, Holder] = {}

    def find(self, name: KeyName) -> Holder | None:
        return self.holders.get(name)

    def assign(self, name: KeyName, holder: Holder, *, seen: Holder | None) -> Holder:
        if self.holders.get(name) in (None, seen):
            self.holders[name] = holder
        return self.holders[name]

    def mark_removed(self, name: KeyName, timer_id: int) -> None:
        holder = self.holders.get(name)
        if holder is not None and holder.timer_id == timer_id:
            self.holders[name] = replace(holder, removed=True)

    def keep(self, name: KeyName, timer_id: int, until: int) -> None:
        pass  # nothing expires here

    def lasts(self, holder: Holder, until: int) -> bool:
        return True


# What ``DynamoDBTimerStore`` does in a conditional write, on a ``SQLiteTimerStore``.


def find(store: SQLiteTimerStore, tenant: str, timer_id: int) -> Timer | None:
    return store._find(tenant, timer_id)


def carry_out(store: SQLiteTimerStore, change: Replacement) -> Timer:
    """Carry out a replacement, if the timer is still as it was seen."""
    with store.transaction():
        if find(store, change.before.tenant, change.before.id) != change.before:
            raise TimerChanged("The timer has just changed.")
        store._connection.execute(*replacement(change.after))
    return change.after


def give_up_key(store: SQLiteTimerStore, timer: Timer) -> None:
    """Take the key from a timer, if it is still in flight as it was seen."""
    with store.transaction():
        if find(store, timer.tenant, timer.id) != timer or timer.lease is None:
            raise TimerChanged("The timer has just changed.")
        store._connection.execute(
            "UPDATE timers SET key = NULL WHERE tenant = ? AND id = ?", (timer.tenant, timer.id)
        )


class FakeArmableStore(SQLiteTimerStore):
    """Stands in for ``DynamoDBTimerStore``: SQLite in memory that notes which timers are armed."""

    def __init__(self) -> None:
        super().__init__(open_store(MEMORY))
        self.armed: dict[tuple[str, int], bool] = {}
        self.keys = FakeKeys()

    def find(self, tenant: str, timer_id: int) -> Timer | None:
        return find(self, tenant, timer_id)

    def give_back(self, tenant: str, unused: int) -> None:
        pass  # a gap in the ids is allowed

    def admit_change(self, tenant: str) -> None:
        pass  # it has no rate

    def give_up_key(self, timer: Timer) -> None:
        give_up_key(self, timer)

    def replace(self, change: Replacement, *, armed: bool | None) -> Timer:
        timer = carry_out(self, change)
        if armed is not None:
            self.armed[timer.tenant, timer.id] = armed
        return timer

    def put(self, timer: Timer, *, armed: bool) -> None:
        self.insert(timer)
        self.armed[timer.tenant, timer.id] = armed

    # A plain ``SQLiteTimerStore`` arms nothing, so the argument that it lacks has a default.

    def settle(self, settlement: Settlement, *, armed: bool = False) -> bool:
        self.armed[settlement.tenant, settlement.id] = armed
        return super().settle(settlement)

    def reschedule(self, change: Reschedule, *, armed: bool = False) -> Timer:
        timer = super().reschedule(change)
        self.armed[change.tenant, change.id] = armed
        return timer


class FakeWakingStore(WakingTimerStore):
    """Stands in for ``WakingTimerStore``: registers no wake-up and needs no clock.

    A test says with ``armed`` whether the timers that it writes next are armed.
    """

    def __init__(self, rows: ArmableStore) -> None:
        self._fake_wakeups = RecordingWakeups()
        # At this clock's time every timer is far: its wake-up always comes before its write.
        super().__init__(rows, self._fake_wakeups, clock=lambda: 0.0)
        self.rows = rows

    @property
    def armed(self) -> bool:
        return not self._fake_wakeups.broken

    @armed.setter
    def armed(self, armed: bool) -> None:
        self._fake_wakeups.broken = not armed


class WrittenRow(NamedTuple):
    """A row as it was written."""

    timer: Timer
    armed: bool


class RecordingStore(FakeArmableStore):
    """Remembers how each timer was written, in a log that it shares with ``RecordingWakeups``.

    ``before_change`` runs before a reschedule, and a write takes ``write_takes_ms`` of the clock.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.log: list[str] = []
        self.written: list[WrittenRow] = []
        self.before_change: Callable[[], object] | None = None
        self.write_takes_ms = 0.0

    def put(self, timer: Timer, *, armed: bool) -> None:
        super().put(timer, armed=armed)
        self._record(timer, armed=armed)

    def reschedule(self, change: Reschedule, *, armed: bool = False) -> Timer:
        if self.before_change:
            self.before_change()
        timer = super().reschedule(change, armed=armed)
        self._record(timer, armed=armed)
        return timer

    def _record(self, timer: Timer, *, armed: bool) -> None:
        self.clock.advance(self.write_takes_ms)
        self.log.append("put")
        self.written.append(WrittenRow(timer, armed))


def is_armed(store: ArmableStore, timer: Timer) -> bool:
    """Return whether the stored row says that the timer is armed."""
    if isinstance(store, FakeArmableStore):
        return store.armed[timer.tenant, timer.id]
    assert isinstance(store, DynamoDBTimerStore)
    row = store._items.read(timer_key(timer.tenant, timer.id))
    assert row
    return row["due_shard"]["S"].startswith(ARMED)
