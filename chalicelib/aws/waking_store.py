"""The timer store of the AWS engine: it writes rows and registers their wake-ups.

This module decides whether a timer is *armed*, which means that its wake-up was registered before
its row was written. The rules:

- Register first, then write. The row can then say whether the timer is armed, so that arming costs
  no write of its own. If the write fails, its wake-up is harmless.
- If the delay is 2 s or less, write first. Otherwise the wake-up could come before its row exists.
- If the write took longer than the delay, register again. The first wake-up may have come before
  the row, and did nothing then.
- A keyed timer that is moved later keeps its version and its wake-up. That one finds the timer not
  due, and is put back for the new time.
- A wake-up that cannot be registered does not fail the request. The timer stays unarmed, and the
  sweeper finds it before it is due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from chalicelib.aws.batch_creates import BatchCreates, NearWakeups, is_written_first
from chalicelib.aws.idempotent_creates import IdempotentCreates, require_in_time
from chalicelib.aws.keyed_timers import KeyedRows, KeyedTimers
from chalicelib.domain.claim import Claim, ClaimResult, Reschedule, Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.keyed import Replacement
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import NewTimer, Status, Timer, Wakeup
from chalicelib.service.ports import (
    Clock,
    DuePage,
    Meter,
    Metric,
    Page,
    Threads,
    Wakeups,
    thread_pool,
    unmetered,
)

log = logging.getLogger(__name__)

T = TypeVar("T")


class ArmableStore(KeyedRows, Protocol):
    """A store whose rows say whether their timer is armed. ``DynamoDBTimerStore`` is one.

    The methods without ``armed`` are those of ``TimerStore`` and ``ClaimStore``.
    """

    def identity(self) -> str:
        """Return the random name of the store."""

    def admit_change(self, tenant: str) -> None:
        """Count a timer that its client moves, fires or replays. Raises ``RateLimited``."""

    def put(self, timer: Timer, *, armed: bool) -> None:
        """Store a new timer."""

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer."""

    def find_many(self, tenant: str, ids: Sequence[int]) -> Sequence[Timer]:
        """Return those timers of ``ids`` that exist."""

    def list(
        self,
        tenant: str,
        *,
        before: int | None,
        status: Status | None,
        limit: int,
        only: Selection = EVERYTHING,
    ) -> Page:
        """Return one page of timers."""

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        """Return one page of outstanding timers."""

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove one timer."""

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove many timers."""

    def claim(self, claim: Claim) -> ClaimResult:
        """Take the lease on a timer."""

    def settle(self, settlement: Settlement, *, armed: bool) -> bool:
        """Record the outcome of an attempt."""

    def reschedule(self, change: Reschedule, *, armed: bool) -> Timer:
        """Make a timer outstanding at another time."""

    def replace(self, change: Replacement, *, armed: bool | None) -> Timer:
        """Change a keyed timer. It stays armed or not if ``armed`` is None."""

    def check(self) -> None:
        """Return if the store is ready."""


class WakeupRegistry(Wakeups, NearWakeups, Protocol):
    """``Wakeups`` that can be cancelled. ``AwsWakeups`` is one."""

    def forget(self, wakeup: Wakeup) -> None:
        """Cancel a wake-up if possible. One that comes nevertheless has no effect."""


class WakingTimerStore:
    """A ``TimerStore`` and ``ClaimStore`` that registers a wake-up with every outstanding row."""

    def __init__(
        self,
        store: ArmableStore,
        wakeups: WakeupRegistry,
        clock: Clock,
        meter: Meter = unmetered,
        *,
        threads: Threads = thread_pool,
    ) -> None:
        self._store = store
        self._wakeups = wakeups
        self._clock = clock
        self._meter = meter
        # Methods that neither need nor void a wake-up.
        self.identity = store.identity
        self.get = store.get
        self.find_many = store.find_many
        self.list = store.list
        self.list_due = store.list_due
        self.purge = store.purge
        self.claim = store.claim
        self.check = store.check
        idempotent = IdempotentCreates(store, self._put, clock)
        self.create_once = idempotent.create
        self.find_once = idempotent.find
        self.create_many = BatchCreates(
            self, store, wakeups, clock, meter=meter, threads=threads
        ).create
        keyed = KeyedTimers(store, self._put, self._move, clock)
        self.set_by_key = keyed.set
        self.get_by_key = keyed.get

    def create(self, new: NewTimer) -> Timer:
        """Give ``new`` an id and store it durably. Raises ``RateLimited``."""
        timer = Timer.first(new, self._store.next_id(new.tenant))
        self._write(timer.wakeup(), lambda armed: self._store.put(timer, armed=armed))
        return timer

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove a pending timer and return it as it was. Raises as ``TimerStore.cancel`` does."""
        timer = self._store.cancel(tenant, timer_id, now)
        self._wakeups.forget(timer.wakeup())
        return timer

    def reschedule(self, change: Reschedule) -> Timer:
        """Make a timer outstanding at another time. Raises as ``TimerStore.reschedule`` does."""
        self._store.admit_change(change.tenant)
        # If the write fails, the wake-up already registered is harmless. Its version does not
        # exist, or another change took that version. Then the claim decides whether it is due.
        timer = self._write(
            change.wakeup(), lambda armed: self._store.reschedule(change, armed=armed)
        )
        # Only now: if the write had failed, the old wake-up would still be needed.
        replaced = change.replaced()
        if replaced is not None:
            self._wakeups.forget(replaced)
        return timer

    def settle(self, settlement: Settlement) -> bool:
        """Record the outcome of an attempt; return False if the token no longer holds the timer."""
        retry = settlement.wakeup()
        if retry is None:
            return self._store.settle(settlement, armed=False)
        write_first = is_written_first(retry, self._clock())
        try:
            return self._write(retry, lambda armed: self._store.settle(settlement, armed=armed))
        except Unavailable:
            # The write may have applied and only its response was lost. Then the retry would wait
            # for a sweep: its wake-up was not registered yet, or may have come too early.
            if write_first or self._clock() >= retry.at:
                self.register(retry)
            raise

    def _put(self, timer: Timer, accepted_at: int) -> None:
        """Store a new timer that has keys, and register its wake-up (``Put``)."""

        def put(armed: bool) -> None:  # noqa: FBT001 - called by ``_write`` only
            # Last: the process may have been halted since the request was accepted.
            require_in_time(accepted_at, self._clock())
            self._store.put(timer, armed=armed)

        self._write(timer.wakeup(), put)

    def _move(self, change: Replacement) -> Timer:
        """Change a keyed timer, and register its wake-up if it is earlier than before."""
        self._store.admit_change(change.before.tenant)
        if not change.earlier:
            return self._store.replace(change, armed=None)
        timer = self._write(
            change.after.wakeup(), lambda armed: self._store.replace(change, armed=armed)
        )
        self._wakeups.forget(change.before.wakeup())
        return timer

    def _write(self, wakeup: Wakeup, write: Callable[[bool], T]) -> T:
        """Carry out ``write`` and register ``wakeup``, in the order that the module explains.

        The argument of ``write`` says whether the timer is armed.
        """
        write_first = is_written_first(wakeup, self._clock())
        armed = not write_first and self.register(wakeup)
        result = write(armed)
        if write_first or self._clock() >= wakeup.at:
            self.register(wakeup)
        return result

    def register(self, wakeup: Wakeup) -> bool:
        """Register a wake-up. Return whether that was possible."""
        try:
            self._wakeups.wake_at(wakeup)
        except Unavailable as error:
            log.warning("timer %s is left to the sweeper: %s", wakeup.id, error.detail)
            self._meter(Metric.UNARMED, 1)
            return False
        return True
