"""The API's side of the local socket: it reads the file, and sends writes to the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.claim import Reschedule
from chalicelib.domain.errors import TimersError, Unavailable
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.keyed import KeyedTimer, SetByKey
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import Idempotency, NewTimer, Status, Timer
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.ipc.remote import DispatcherClient
from chalicelib.service.ports import DuePage, Page

BATCH_STEP = 250
"""Timers of a batch in one message and one commit, which takes about 10 ms."""

NOT_TRIED = "This timer is not stored: an earlier part of the batch could not be written."


class RemoteTimerStore(DispatcherClient):
    """A ``TimerStore`` for many threads, each with a reader and a connection of its own."""

    def create(self, new: NewTimer) -> Timer:
        """Store ``new`` under its tenant's next id. Raises ``RateLimited``."""
        return Timer.first(new, self._write("create", messages.from_new_timer(new)))

    def create_once(self, new: NewTimer) -> SetOnce:
        """Do the same as ``create``, unless a timer of the tenant has the idempotency key."""
        return SetOnce(*self._write("create_once", messages.from_new_timer(new)))

    def create_many(self, news: Sequence[NewTimer]) -> Sequence[SetOnce | TimersError]:
        """Store each timer, or refuse it, on its own; return the results in order."""
        results: list[SetOnce | TimersError] = []
        # A part at a time: others' requests must not wait for a whole batch.
        for start in range(0, len(news), BATCH_STEP):
            step = [messages.from_new_timer(new) for new in news[start : start + BATCH_STEP]]
            try:
                created = self._write("create_many", {"news": step})
            except Unavailable as error:
                # Earlier parts are stored: an error of the whole batch would hide their timers.
                if not results:
                    raise
                rest = len(news) - start - len(step)
                return [*results, *[error] * len(step), *[Unavailable(NOT_TRIED)] * rest]
            results += map(messages.read_created, created)
        return results

    def find_once(self, tenant: str, wanted: Idempotency) -> SetOnce | None:
        """Return what ``create_once`` returned for this request; None if there is no such timer."""
        return self._reader.find_once(tenant, wanted)

    def set_by_key(self, wanted: SetByKey) -> KeyedTimer:
        """Set the timer of a key, or move it; see ``TimerStore.set_by_key``."""
        result = self._write("set_by_key", messages.from_set_by_key(wanted))
        return messages.read_keyed_timer(result)

    def get_by_key(self, tenant: str, key: str) -> Timer:
        """Return the timer of a key, the latest that had it. Raises ``TimerNotFound``."""
        return self._reader.get_by_key(tenant, key)

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        return self._reader.get(tenant, timer_id)

    def find_many(self, tenant: str, ids: Sequence[int]) -> Sequence[Timer]:
        """Return those timers of ``ids`` that exist, in no order."""
        return self._reader.find_many(tenant, ids)

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
        return self._reader.list(tenant, before=before, status=status, limit=limit, only=only)

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        """Return outstanding timers behind ``after``, the next to be called first."""
        return self._reader.list_due(tenant, after=after, only=only, limit=limit)

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove a pending timer. Raises ``TimerNotFound``, ``TimerSettled``, ``TimerInFlight``."""
        arguments = {"tenant": tenant, "timer_id": timer_id, "now": now}
        return messages.read_timer(self._write("cancel", arguments))

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``; see ``TimerStore.purge``."""
        arguments = {"tenant": tenant, "before": before, "limit": limit}
        next_before: int | None = self._write("purge", arguments)
        return next_before

    def reschedule(self, change: Reschedule) -> Timer:
        """Make one timer outstanding at another time; see ``TimerStore.reschedule``."""
        return messages.read_timer(self._write("reschedule", messages.from_reschedule(change)))

    def check(self) -> None:
        """Return if the store can be read and written; raise ``Unavailable`` otherwise."""
        self._write("check", {})
        self._reader.next_due_at("")
