"""The timer store on SQLite. In memory it also serves the tests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.attempt_log import encode
from chalicelib.domain.claim import (
    Claim,
    Claimed,
    ClaimResult,
    Reschedule,
    Settlement,
    explain_refusal,
)
from chalicelib.domain.errors import (
    IdempotencyKeyReused,
    QuotaExceeded,
    RateLimited,
    TimerChanged,
    TimerInFlight,
    TimerNotFound,
    TimersError,
)
from chalicelib.domain.idempotency import SetOnce, replay
from chalicelib.domain.keyed import KeyedTimer, Replacement, SetByKey, decide
from chalicelib.domain.quota import UNLIMITED, Quota, Stored
from chalicelib.domain.rate import Limiter, Rate
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import UNDELIVERED, Idempotency, NewTimer, Status, Timer, Wakeup
from chalicelib.embedded.clock import NOT_MOVED, ClockState
from chalicelib.embedded.database import (
    APPLICATION_ID,
    MEMORY,
    open_store,
    unavailable_on_error,
    without_waiting,
)
from chalicelib.embedded.rows import SELECTED, insert, replacement, selecting, table_of, timer_of
from chalicelib.embedded.transactions import TransactionalStore
from chalicelib.service.ports import DuePage, Page

LIST_WINDOW = 20_000
"""The most timers that one page looks at when it filters by something that may be rare."""

# The terms of the due index (migration 3): with other words, SQLite would not use it.
_DUE_AT = "coalesce(lease_until, next_attempt_at)"
_DUE = "tenant = ? AND next_attempt_at IS NOT NULL AND held_for IS NULL"
_HELD = "tenant = ? AND held_for IS NOT NULL"


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that may be claimed, and the URL that it calls."""

    wakeup: Wakeup
    url: str


class SQLiteTimerStore(TransactionalStore):
    """Timers in one SQLite file. Each method is one transaction unless one is open already."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        path: str | None = None,
        rate: Rate | None = None,
        quota: Quota = UNLIMITED,
    ) -> None:
        """``rate`` limits what each tenant sets and changes, as far as it goes through this object.

        ``quota`` limits what each tenant may have stored before a create.
        ``path`` is the file, None for a store in memory.
        """
        super().__init__(connection)
        self.path = path
        self._limiter = Limiter(rate)
        self._quota = quota
        (self._identity,) = connection.execute("SELECT identity FROM store").fetchone()

    @classmethod
    def in_memory(cls, rate: Rate | None = None, quota: Quota = UNLIMITED) -> SQLiteTimerStore:
        """Return an empty store, which is gone when the object is."""
        return cls(open_store(MEMORY), rate=rate, quota=quota)

    @classmethod
    def open(
        cls, path: str, rate: Rate | None = None, quota: Quota = UNLIMITED
    ) -> SQLiteTimerStore:
        """Open a file for the one process that writes it. Raises ``StoreFileError``."""
        return cls(open_store(path), path=path, rate=rate, quota=quota)

    def identity(self) -> str:
        """Return the random id that the file got when it was made."""
        return str(self._identity)

    def create(self, new: NewTimer) -> Timer:
        """Give ``new`` the tenant's next id and store it.

        Raises ``RateLimited`` and ``QuotaExceeded``.
        """
        with self.transaction():
            self._admit(new)
            timer = Timer.first(new, self._next_id(new.tenant))
            self.insert(timer)
        return timer

    def set_by_key(self, wanted: SetByKey) -> KeyedTimer:
        """Set the timer of a key, or move it. Raises what ``TimerStore.set_by_key`` raises."""
        tenant = wanted.new.tenant
        with self.transaction():
            timer = self._find_by_key(tenant, wanted.key)
            decision = decide(timer, wanted)
            if isinstance(decision, Replacement):
                if self._quota != UNLIMITED:
                    stored = self.stored(tenant)
                    self._quota.require_room_to_replace(stored, decision.before, decision.after)
                self._limiter.admit(tenant, wanted.new.created_at)
                self._connection.execute(*replacement(decision.after))
                return KeyedTimer(decision.after, created=False)
            # Before the key changes hands: a refused request changes nothing.
            self._admit(decision)
            if timer is not None and timer.next_attempt_at is not None:
                self._connection.execute(
                    "UPDATE timers SET key = NULL WHERE tenant = ? AND id = ?", (tenant, timer.id)
                )
            created = Timer.first(decision, self._next_id(tenant))
            self.insert(created)
        return KeyedTimer(created, created=True)

    def get_by_key(self, tenant: str, key: str) -> Timer:
        """Return the timer of a key, the latest that had it. Raises ``TimerNotFound``."""
        timer = self._find_by_key(tenant, key)
        if timer is None:
            raise TimerNotFound(f"There is no timer {key!r}.")
        return timer

    def create_once(self, new: NewTimer) -> SetOnce:
        """Do the same as ``create``, unless a timer of the tenant has the idempotency key.

        Raises ``ValueError`` for a timer without such a key, and what ``TimerStore.create_once``
        raises.
        """
        if new.idempotency is None:
            raise ValueError("only an idempotent request can be repeated")
        with self.transaction():
            # Before rate and quota: a repeated request sets no timer.
            before = self.find_once(new.tenant, new.idempotency)
            return before or SetOnce(self.create(new).id, replayed=False)

    def create_many(self, news: Sequence[NewTimer]) -> Sequence[SetOnce | TimersError]:
        """Store each timer, or refuse it, on its own, all in one commit; return the results."""
        with self.transaction():
            return [self._created_or_refused(new) for new in news]

    def _created_or_refused(self, new: NewTimer) -> SetOnce | TimersError:
        try:
            if new.idempotency is not None:
                return self.create_once(new)
            return SetOnce(self.create(new).id, replayed=False)
        except (RateLimited, QuotaExceeded, IdempotencyKeyReused) as refusal:
            # Raised before anything of the timer is written.
            return refusal

    def find_once(self, tenant: str, wanted: Idempotency) -> SetOnce | None:
        """Return what ``create_once`` returned for this request; None if there is no such timer.

        Raises ``IdempotencyKeyReused``.
        """
        timer = self._find_by("idempotency_key = ?", tenant, wanted.key)
        return None if timer is None else replay(timer, wanted)

    def stored(self, tenant: str) -> Stored:
        """Return what ``tenant`` has stored."""
        with unavailable_on_error():
            row = self._connection.execute(
                "SELECT timers, bytes FROM tenants WHERE tenant = ?", (tenant,)
            ).fetchone()
        return Stored(*row) if row else Stored()

    def insert(self, timer: Timer) -> None:
        """Store a new timer under the id that it has."""
        with self.transaction():
            self._connection.execute(*insert(timer))

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        timer = self._find(tenant, timer_id)
        if timer is None:
            raise TimerNotFound(f"There is no timer {timer_id}.")
        return timer

    def find_many(self, tenant: str, ids: Sequence[int]) -> Sequence[Timer]:
        """Return those timers of ``ids`` that exist, in no order."""
        places = ", ".join("?" * len(ids))
        with unavailable_on_error():
            found = self._connection.execute(
                f"SELECT {SELECTED} FROM timers WHERE tenant = ? AND id IN ({places})",
                (tenant, *ids),
            ).fetchall()
        return [timer_of(row) for row in found]

    def list(
        self,
        tenant: str,
        *,
        before: int | None,
        status: Status | None,
        limit: int,
        only: Selection = EVERYTHING,
    ) -> Page:
        """Return selected timers with an id below ``before``, highest first, at most ``limit``."""
        with unavailable_on_error():
            top = self._last_id(tenant) + 1
            top = top if before is None else min(before, top)
            # Failed, expired and labelled timers have indexes of their own. Others are looked for
            # among the next ids only, so that a page costs no more when they are rare.
            indexed = (status is None and only == EVERYTHING) or status in UNDELIVERED
            windowed = not indexed and only.label is None
            floor = max(top - LIST_WINDOW, 0) if windowed else 0
            condition, values = selecting(only)
            # The status is part of the text: with a parameter, SQLite cannot use the index of
            # failed timers.
            rows = self._connection.execute(
                f"SELECT {SELECTED} FROM {table_of(only, status)} "
                "WHERE tenant = ? AND id < ? AND id >= ? "
                + (f"AND status = '{status.value}' " if status else "")
                + condition
                + "ORDER BY id DESC LIMIT ?",
                (tenant, top, floor, *values, limit + 1),  # one more: is there a next page?
            ).fetchall()
        timers = [timer_of(row) for row in rows[:limit]]
        if len(rows) > limit:
            return Page(timers=timers, before=timers[-1].id)
        return Page(timers=timers, before=floor if floor > 1 else None)  # ids begin at 1

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        """Return outstanding timers behind ``after``, the next to be called first."""
        # A selection may have few timers. So they are looked for among the next ones only.
        window = limit + 1 if only == EVERYTHING else max(LIST_WINDOW, limit + 1)
        condition, values = selecting(only)
        with unavailable_on_error():
            places = self._due_places(tenant, after, window)
            rows = self._connection.execute(
                f"SELECT id, {SELECTED} FROM {table_of(only, None)} "
                "WHERE tenant = ? AND next_attempt_at IS NOT NULL "
                f"AND id IN (SELECT value FROM json_each(?)) {condition}",
                (tenant, json.dumps([place.id for place in places]), *values),
            ).fetchall()
        selected = {timer_id: row for timer_id, *row in rows}
        positions = [place for place in places if place.id in selected]
        end = places[-1] if len(places) == window else None
        if len(positions) > limit:
            end = positions[limit - 1]
        positions = positions[:limit]
        return DuePage(
            timers=[timer_of(selected[place.id]) for place in positions],
            positions=positions,
            after=end,
        )

    def _due_places(
        self, tenant: str, after: DuePosition | None, count: int
    ) -> Sequence[DuePosition]:
        """Return the next ``count`` places behind ``after``; they are read from indexes alone."""
        at, above = (after.at, after.id) if after else (0, 0)
        # Held timers are not in the due index (migration 3). Without the name of their index,
        # SQLite would read every timer of the tenant.
        found = [
            DuePosition(*row)
            for index, of, moment in (("due", _DUE, _DUE_AT), ("held", _HELD, "next_attempt_at"))
            for row in self._connection.execute(
                f"SELECT {moment}, id FROM timers INDEXED BY {index} WHERE {of} "
                f"AND {moment} >= ? AND ({moment} > ? OR id > ?) ORDER BY {moment}, id LIMIT ?",
                (tenant, at, at, above, count),
            )
        ]
        return sorted(found)[:count]

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove a pending timer. Raises ``TimerNotFound``, ``TimerSettled``, ``TimerInFlight``."""
        with self.transaction():
            timer = self._get_unleased(tenant, timer_id, now)
            timer.require_pending()
            self._connection.execute(
                "DELETE FROM timers WHERE tenant = ? AND id = ?", (tenant, timer_id)
            )
        return timer

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers with an id below ``before``, highest first.

        Return the id below which to go on; None if no timer is left.
        """
        with self.transaction():
            top = before if before is not None else self._last_id(tenant) + 1
            ids = self._connection.execute(
                "SELECT id FROM timers WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?",
                (tenant, top, limit),
            ).fetchall()
            if not ids:
                return None
            lowest = int(ids[-1][0])
            self._connection.execute(
                "DELETE FROM timers WHERE tenant = ? AND id < ? AND id >= ?", (tenant, top, lowest)
            )
        return lowest if len(ids) == limit else None

    def due(self, tenant: str, now: int, limit: int) -> Sequence[DueTimer]:
        """Return at most ``limit`` due timers of ``tenant`` that can be claimed, earliest first."""
        return self._due_timers(
            f"{_DUE} AND {_DUE_AT} <= ? ORDER BY {_DUE_AT} LIMIT ?",
            (tenant, now, limit),
        )

    def held(self, tenant: str, receiver: str, limit: int) -> Sequence[DueTimer]:
        """Return at most ``limit`` timers of ``tenant`` held for ``receiver``, earliest first."""
        return self._due_timers(
            "tenant = ? AND held_for = ? ORDER BY next_attempt_at LIMIT ?",
            (tenant, receiver, limit),
        )

    def hold(self, wakeup: Wakeup, receiver: str | None) -> None:
        """Take a timer out of the due index, into the queue of ``receiver``; None puts it back."""
        with self.transaction():
            self._connection.execute(
                "UPDATE timers SET held_for = ? WHERE tenant = ? AND id = ?",
                (receiver, wakeup.tenant, wakeup.id),
            )

    def next_due_at(self, tenant: str, after: int = 0) -> int | None:
        """Return the earliest time after ``after`` at which a timer is due or its lease ends.

        Both are epoch ms. Held timers do not count. Return None if there is no such time.
        """
        with unavailable_on_error():
            row = self._connection.execute(
                f"SELECT {_DUE_AT} FROM timers WHERE {_DUE} AND {_DUE_AT} > ? "
                f"ORDER BY {_DUE_AT} LIMIT 1",
                (tenant, after),
            ).fetchone()
        return None if row is None else int(row[0])

    def next_due_by_tenant(
        self, after: str | None = None, limit: int = -1
    ) -> Sequence[tuple[str, int | None]]:
        """Return tenants above ``after`` in order, each with ``next_due_at``. -1 is no limit."""
        with unavailable_on_error():
            tenants = self._connection.execute(
                "SELECT tenant FROM tenants WHERE ? IS NULL OR tenant > ? ORDER BY tenant LIMIT ?",
                (after, after, limit),
            ).fetchall()
        return [(tenant, self.next_due_at(tenant)) for (tenant,) in tenants]

    def any_held(self) -> bool:
        """Tell whether any timer is held."""
        with unavailable_on_error():
            row = self._connection.execute(
                "SELECT 1 FROM timers WHERE held_for IS NOT NULL LIMIT 1"
            ).fetchone()
        return row is not None

    def clock_state(self) -> ClockState:
        """Return the state of the test clock."""
        with unavailable_on_error():
            row = self._connection.execute("SELECT ahead_ms, stopped_at FROM clock").fetchone()
        return ClockState(*row) if row else NOT_MOVED

    def set_clock(self, state: ClockState) -> None:
        """Store the state of the test clock."""
        with self.transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", (state.ahead_ms, state.stopped_at)
            )

    def claim(self, claim: Claim) -> ClaimResult:
        """Take the lease on a due timer of the wake-up's version."""
        wakeup, lease = claim.wakeup, claim.lease
        with self.transaction():
            row = self._connection.execute(
                "UPDATE timers SET lease_until = ?, token = ?, held_for = NULL "
                "WHERE tenant = ? AND id = ? AND version = ? AND next_attempt_at <= ? "
                "AND (lease_until IS NULL OR lease_until <= ?) "
                f"RETURNING {SELECTED}",
                (
                    lease.until,
                    lease.token,
                    wakeup.tenant,
                    wakeup.id,
                    wakeup.version,
                    claim.now,
                    claim.now,
                ),
            ).fetchone()
        if row is not None:
            return Claimed(timer_of(row), lease)
        # The row is read again only to say why; the update alone has decided.
        return explain_refusal(claim, self._find(wakeup.tenant, wakeup.id))

    def settle(self, settlement: Settlement) -> bool:
        """Record the outcome of an attempt; return False if its claim no longer holds."""
        again = settlement.next_attempt_at is not None  # 1 or 0 in the statement
        with self.transaction():
            changed = self._connection.execute(
                "UPDATE timers SET status = ?, next_attempt_at = ?, settled_at = ?, "
                "version = version + ?, attempts = ?, lease_until = NULL, token = NULL, "
                "due_at = coalesce(?, due_at), repeats = repeats + ?, "
                "log = ? WHERE tenant = ? AND id = ? AND token = ?",
                (
                    settlement.status.value,
                    settlement.next_attempt_at,
                    None if again else settlement.now,
                    again,
                    settlement.attempts,
                    settlement.next_attempt_at if settlement.repeat else None,
                    settlement.repeat,
                    encode(settlement.log),
                    settlement.tenant,
                    settlement.id,
                    settlement.token,
                ),
            ).rowcount
        return changed == 1

    def reschedule(self, change: Reschedule) -> Timer:
        """Make a timer outstanding at another time, under a new version.

        Raises ``TimerNotFound``, ``TimerInFlight``, ``RateLimited``, and ``TimerChanged`` if it is
        no longer as the caller has seen it.
        """
        with self.transaction():
            timer = self._get_unleased(change.tenant, change.id, change.now)
            seen = (change.status, change.version, change.no_later_than, None)
            # A lease that has ended counts as a change too: the call may have been made.
            if (timer.status, timer.version, timer.no_later_than, timer.lease) != seen:
                raise TimerChanged(f"Timer {change.id} has just changed; look at it again.")
            # Last: a refused change uses nothing of the rate.
            self._limiter.admit(change.tenant, change.now)
            row = self._connection.execute(
                "UPDATE timers SET status = ?, next_attempt_at = ?, due_at = ?, "
                "settled_at = NULL, version = version + 1, attempts = ?, token = NULL, "
                "held_for = NULL, "
                # The key of a settled timer is free, and another timer may have it by now.
                "key = CASE status WHEN 'pending' THEN key END "
                f"WHERE tenant = ? AND id = ? RETURNING {SELECTED}",
                (
                    Status.PENDING.value,
                    change.at,
                    change.due_at,
                    change.attempts,
                    change.tenant,
                    change.id,
                ),
            ).fetchone()
        return timer_of(row)

    def check(self) -> None:
        """Return if the store can be read and written; raise ``Unavailable`` otherwise."""
        with self.transaction():
            # SQLite skips an UPDATE that changes nothing, but it always writes this pragma.
            self._connection.execute(f"PRAGMA application_id={APPLICATION_ID}")

    def void_leases(self) -> int:
        """End every lease, when the senders that held them are dead; return how many.

        No timer stays held either: the process that kept its receiver's calls is dead as well.
        """
        with self.transaction():
            self._connection.execute("UPDATE timers SET held_for = NULL WHERE held_for IS NOT NULL")
            return self._connection.execute(
                "UPDATE timers SET lease_until = NULL, token = NULL WHERE lease_until IS NOT NULL"
            ).rowcount

    def clean(self, settled_before: int, limit: int) -> int:
        """Remove up to ``limit`` timers settled before ``settled_before``; return how many."""
        with self.transaction():
            return self._connection.execute(
                "DELETE FROM timers WHERE (tenant, id) IN (SELECT tenant, id FROM timers "
                "WHERE settled_at < ? ORDER BY settled_at LIMIT ?)",
                (settled_before, limit),
            ).rowcount

    @property
    def changes(self) -> int:
        """How many rows this store has changed since it was opened."""
        return self._connection.total_changes

    def restart_log(self) -> bool:
        """Begin the write-ahead log anew, from the start of its file.

        Return False, without waiting, if a reader still needs it. Raises ``sqlite3.Error``.
        """
        with without_waiting(self._connection):
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        return not busy

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def next_id(self, tenant: str) -> int:
        """Return an id that was never given before."""
        with self.transaction():
            return self._next_id(tenant)

    def _admit(self, new: NewTimer) -> None:
        """Return if a timer may be stored. Raises ``RateLimited`` and ``QuotaExceeded``."""
        if self._quota != UNLIMITED:
            self._quota.require_room(self.stored(new.tenant), new)
        self._limiter.admit(new.tenant, new.created_at)

    def _next_id(self, tenant: str) -> int:
        row = self._connection.execute(
            "INSERT INTO tenants (tenant, last_id) VALUES (?, 1) "
            "ON CONFLICT DO UPDATE SET last_id = last_id + 1 RETURNING last_id",
            (tenant,),
        ).fetchone()
        return int(row[0])

    def _last_id(self, tenant: str) -> int:
        row = self._connection.execute(
            "SELECT last_id FROM tenants WHERE tenant = ?", (tenant,)
        ).fetchone()
        return int(row[0]) if row else 0

    def _due_timers(self, condition: str, parameters: tuple[Any, ...]) -> Sequence[DueTimer]:
        with unavailable_on_error():
            rows = self._connection.execute(
                f"SELECT tenant, id, version, next_attempt_at, url FROM timers WHERE {condition}",
                parameters,
            ).fetchall()
        return [
            DueTimer(Wakeup(tenant=tenant, id=timer_id, version=version, at=at), url)
            for tenant, timer_id, version, at, url in rows
        ]

    def _find(self, tenant: str, timer_id: int) -> Timer | None:
        return self._find_by("id = ?", tenant, timer_id)

    def _find_by_key(self, tenant: str, key: str) -> Timer | None:
        return self._find_by("key = ? ORDER BY id DESC LIMIT 1", tenant, key)

    def _find_by(self, condition: str, tenant: str, value: int | str) -> Timer | None:
        with unavailable_on_error():
            row = self._connection.execute(
                f"SELECT {SELECTED} FROM timers WHERE tenant = ? AND {condition}", (tenant, value)
            ).fetchone()
        return None if row is None else timer_of(row)

    def _get_unleased(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Return a timer that no sender holds. Raises ``TimerNotFound`` and ``TimerInFlight``.

        A lease that has ended does not block: a sender that is slow checks its lease before it
        calls.
        """
        timer = self.get(tenant, timer_id)
        if timer.leased(now):
            raise TimerInFlight(f"The webhook of timer {timer_id} is on the wire right now.")
        return timer
