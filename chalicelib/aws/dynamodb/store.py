"""The rows of timers in DynamoDB. Most methods make one call.

A delivered timer costs five write units and no read: the put (row and due index), the claim
(row), the settlement (row and due index). A failed conditional write returns the row as it is, so
the reason of the failure needs no read either.

The client repeats a write whose response was lost. The first try may have applied. Then the second
one fails its condition, and every write here recognises that case.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.change_blocks import ChangeBlocks
from chalicelib.aws.dynamodb.content_items import ContentItems
from chalicelib.aws.dynamodb.counter import Counter
from chalicelib.aws.dynamodb.due_list import DueList
from chalicelib.aws.dynamodb.failed_index import FailedIndex
from chalicelib.aws.dynamodb.failures import ConditionFailed, MaybeWritten
from chalicelib.aws.dynamodb.filters import Filter
from chalicelib.aws.dynamodb.id_blocks import IdBlocks
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.key_items import MIN_KEPT_S, KeyItems
from chalicelib.aws.dynamodb.partitions import OPEN_IDS, PARTITIONS_PER_STEP, Partitions
from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.aws.dynamodb.updates import (
    NOT_LEASED,
    Update,
    claiming,
    giving_up_key,
    replacing,
    rescheduling,
    settling,
)
from chalicelib.aws.key_holder import YOUNG_MS, IdTaken, names_of
from chalicelib.domain.claim import (
    Claim,
    Claimed,
    ClaimResult,
    Reschedule,
    Settlement,
    explain_refusal,
)
from chalicelib.domain.errors import TimerChanged, TimerInFlight, TimerNotFound, Unavailable
from chalicelib.domain.keyed import Replacement
from chalicelib.domain.rate import Rate
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import UNDELIVERED, Status, Timer
from chalicelib.service.ports import Clock, DuePage, Page

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.aws.dynamodb.rows import Row

_DAY_S = 86_400

_NO_YOUNG_KEYS = (
    "(#created_at < :young "
    "OR attribute_not_exists(#key) AND attribute_not_exists(#idempotency_key))"
)
"""The timer has no key, or is older than ``YOUNG_MS``."""


class DynamoDBTimerStore:
    """Timers in one DynamoDB table. Thread-safe."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        *,
        retention_days: float = 7.0,
        rate: Rate | None = None,
        partitions_per_step: int = PARTITIONS_PER_STEP,
        open_ids: int = OPEN_IDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``rate`` limits what each tenant sets and changes.

        Settled timers are kept ``retention_days``.

        For ``partitions_per_step`` and ``open_ids`` see ``Partitions``. ``sleep`` takes seconds.
        """
        self._items = Items(client, table, sleep)
        self._failed = FailedIndex(self._items)
        self._due = DueList(self._items)
        counter = Counter(self._items, clock, rate)
        self._ids = IdBlocks(counter.reserve, clock, counter.max_block)
        self._changes = ChangeBlocks(counter, clock)
        self._retention_s = int(retention_days * _DAY_S)
        self.keys = KeyItems(self._items, self._retention_s)
        self._contents = ContentItems(self._items, self._retention_s)
        self._partitions = Partitions(
            self._items,
            self.keys,
            self._contents,
            clock,
            per_step=partitions_per_step,
            open_ids=open_ids,
        )
        self._identity: str | None = None

    def identity(self) -> str:
        """Return the random name of this store. It never changes."""
        # Two threads may read it at the same time. Both get the same name.
        if self._identity is None:
            row = self._items.read(rows.store_key()) or self._name_store()
            self._identity = row["identity"]["S"]
        return self._identity

    def next_id(self, tenant: str) -> int:
        """Return an id that was never used before. Raises ``RateLimited``."""
        return self._ids.next(tenant)

    def give_back(self, tenant: str, unused: int) -> None:
        """Take back an id of ``next_id`` that was not used, with its share of the rate."""
        self._ids.give_back(tenant, unused)

    def admit_change(self, tenant: str) -> None:
        """Count a timer that its client moves, fires or replays. Raises ``RateLimited``."""
        self._changes.admit(tenant)

    def put(self, timer: Timer, *, armed: bool) -> None:
        """Store a new timer. ``armed`` tells the sweeper whether its wake-up is registered.

        Raises ``IdTaken`` if another timer has its id.
        """
        row, content = rows.new_row(timer, armed=armed)
        if content is not None:
            self._contents.write(timer.tenant, timer.id, content, timer.due_at)
        try:
            self._items.insert(row)
        except MaybeWritten:
            # The id is known, so one read tells whether the timer is there.
            if not self._is_stored(row):
                raise
        except ConditionFailed as failure:
            # A repeated put whose first try applied finds its own row. That is a success.
            if failure.row is None or not rows.same_timer(failure.row, row):
                raise IdTaken(f"The id {timer.id} is taken already.") from failure

    def _is_stored(self, row: Row) -> bool:
        """Tell whether a new row is stored. False also if that cannot be told."""
        try:
            found = self._items.read({"pk": row["pk"], "id": row["id"]})
        except Unavailable:
            return False
        return found is not None and rows.same_timer(found, row)

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        row = self._items.read(rows.timer_key(tenant, timer_id))
        if row is None:
            raise _not_found(timer_id)
        return rows.timer_of(self._contents.complete(tenant, timer_id, row))

    def find(self, tenant: str, timer_id: int) -> Timer | None:
        """Return one timer, maybe without large headers and a large body; None if there is none."""
        row = self._items.read(rows.timer_key(tenant, timer_id))
        return None if row is None else rows.timer_of(row)

    def find_many(self, tenant: str, ids: Sequence[int]) -> Sequence[Timer]:
        """Return those timers of ``ids`` that exist, in no order. Large content may be missing."""
        found = self._items.read_all([rows.timer_key(tenant, each) for each in ids])
        return [rows.timer_of(row) for row in found]

    def list(
        self,
        tenant: str,
        *,
        before: int | None,
        status: Status | None,
        limit: int,
        only: Selection = EVERYTHING,
    ) -> Page:
        """Return selected timers with an id below ``before``, highest first, at most ``limit``.

        Failed and expired timers are read from their index, which may be slightly behind. Large
        headers and bodies may be missing.
        """
        keep = Filter.of(status, only)
        if status in UNDELIVERED:
            found, before = self._failed.below(tenant, before, keep, limit)
        else:
            found, before = self._partitions.below(tenant, before, keep, limit)
        return Page(timers=[rows.timer_of(row) for row in found], before=before)

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        """Return outstanding timers behind ``after``, the next to be called first.

        They are read from the due index, which may be slightly behind. A timer in flight is listed
        at the time of its attempt.
        """
        keys, after = self._due.page(tenant, after, limit)
        found = self._items.read_all([rows.timer_key(tenant, key.id) for key in keys])
        timers = {timer.id: timer for timer in map(rows.timer_of, found)}
        # One that was settled since the index was read has no next time any more.
        listed = [
            (timer, key)
            for key in keys
            if (timer := timers.get(key.id)) and timer.next_attempt_at and only.match(timer)
        ]
        return DuePage(
            timers=[timer for timer, _ in listed],
            positions=[key for _, key in listed],
            after=after,
        )

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove a pending timer and return it as it was.

        Raises ``TimerNotFound``, ``TimerSettled``, and ``TimerInFlight`` while a sender holds it.
        A repeated delete whose first try applied raises ``TimerNotFound``.
        """
        try:
            return self._delete(tenant, timer_id, now, f" AND {_NO_YOUNG_KEYS}", now - YOUNG_MS)
        except ConditionFailed as failure:
            if failure.row is None:
                raise _not_found(timer_id) from failure
            timer = rows.timer_of(failure.row)
        timer.require_pending()
        if timer.leased(now):
            raise _in_flight(timer_id)
        # It has keys and is so young that they could pass for those of a timer that is still to
        # come (``key_holder.py``).
        for name in names_of(timer):
            self.keys.mark_removed(name, timer_id)
        try:
            return self._delete(tenant, timer_id, now)
        except ConditionFailed as failure:
            if failure.row is None:
                raise _not_found(timer_id) from failure
            raise _in_flight(timer_id) from failure

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``; return the next ``before``.

        The highest ids go first. The progress of an unfinished purge is remembered, and the next
        purge skips that range.
        """
        return self._partitions.purge(tenant, before, limit)

    def claim(self, claim: Claim) -> ClaimResult:
        """Take the lease on a due timer of the wake-up's version."""
        wakeup = claim.wakeup
        try:
            row = self._update(wakeup.tenant, wakeup.id, claiming(claim))
        except ConditionFailed as failure:
            timer = None if failure.row is None else rows.timer_of(failure.row)
            result = explain_refusal(claim, timer)
            if failure.row is None or not isinstance(result, Claimed):
                return result
            row = failure.row  # a repeated claim whose first try applied
        row = self._contents.complete(wakeup.tenant, wakeup.id, row)
        return Claimed(rows.timer_of(row), claim.lease)

    def settle(self, settlement: Settlement, *, armed: bool) -> bool:
        """Record the outcome of an attempt; return False if the token no longer holds the timer.

        ``armed`` tells the sweeper whether the wake-up of the retry is registered. A repeated
        settlement whose first try applied has no effect and returns True.
        """
        update = settling(settlement, self._retention_s, armed=armed)
        try:
            row = self._update(settlement.tenant, settlement.id, update)
        except ConditionFailed as failure:
            return rows.was_settled_by(failure.row, settlement.token)
        if settlement.next_attempt_at is not None:
            self._keep(row)
        return True

    def reschedule(self, change: Reschedule, *, armed: bool) -> Timer:
        """Make a timer outstanding at another time, under the next version.

        Raises as ``TimerStore.reschedule`` does. A repeated change whose first try applied has no
        effect and returns the timer.
        """
        try:
            row = self._update(change.tenant, change.id, rescheduling(change, armed=armed))
        except ConditionFailed as failure:
            return _rescheduled_before(change, failure)
        self._keep(row)
        return rows.timer_of(row)

    def replace(self, change: Replacement, *, armed: bool | None) -> Timer:
        """Move a keyed timer and replace what its client sends.

        ``armed`` tells the sweeper whether the new wake-up is registered; None changes nothing.
        Raises ``TimerChanged`` if the timer is no longer as it was seen.
        """
        before = change.before
        update, content = replacing(change, armed=armed)
        if content is not None:
            self._contents.write(before.tenant, before.id, content, change.after.due_at)
        try:
            row = self._update(before.tenant, before.id, update)
        except ConditionFailed as failure:
            raise _changed(before.id) from failure
        return rows.timer_of(row)

    def give_up_key(self, timer: Timer) -> None:
        """Take the key from a timer in flight. Raises ``TimerChanged`` if it is not any more."""
        try:
            self._update(timer.tenant, timer.id, giving_up_key(timer))
        except ConditionFailed as failure:
            raise _changed(timer.id) from failure

    def check(self) -> None:
        """Return if the table can be read, else raise ``Unavailable``."""
        self._items.read(rows.store_key())

    def _delete(
        self, tenant: str, timer_id: int, now: int, further: str = "", young: int | None = None
    ) -> Timer:
        """Remove a timer that is pending and not in flight, and return it as it was.

        ``further`` is another condition, ``young`` its value. Raises ``ConditionFailed``.
        """
        values = {":pending": text(Status.PENDING.value), ":now": number(now)}
        row = self._items.delete(
            rows.timer_key(tenant, timer_id),
            # A timer that does not exist has no status, so the condition is false for it.
            f"#status = :pending AND {NOT_LEASED}{further}",
            values if young is None else {**values, ":young": number(young)},
        )
        if "key" in row:
            # Content of before may be left: a set by key leaves what it replaces.
            self._contents.remove_all(tenant, timer_id)
        else:
            self._contents.remove(tenant, [row])
        return rows.timer_of(row)

    def _keep(self, row: Row) -> None:
        """Make the items of a timer's keys and content outlive it, if it has moved far away."""
        timer = rows.timer_of(row)
        at = timer.next_attempt_at
        # Before that, they outlive it anyway (``key_items.py``).
        if at is None or at - timer.created_at <= MIN_KEPT_S * 1000:
            return
        for name in names_of(timer):
            self.keys.keep(name, timer.id, at)
        self._contents.keep(timer.tenant, timer.id, row, at)

    def _update(self, tenant: str, timer_id: int, update: Update) -> Row:
        """Change a timer and return its row as changed. Raises ``ConditionFailed``."""
        key = rows.timer_key(tenant, timer_id)
        return self._items.update(key, update.change, update.values, condition=update.condition)

    def _name_store(self) -> Row:
        """Name the store, unless another process has just named it. Return the item."""
        row = rows.store_row(secrets.token_hex(8))
        try:
            self._items.insert(row)
        except ConditionFailed as failure:
            return failure.row or row
        return row


def _rescheduled_before(change: Reschedule, failure: ConditionFailed) -> Timer:
    """Return the timer if this change has been written before, else raise why it cannot be.

    It has been written before if the first try of a repeated write applied.
    """
    if failure.row is None:
        raise _not_found(change.id) from failure
    timer = rows.timer_of(failure.row)
    if timer.leased(change.now):
        raise _in_flight(change.id) from failure
    # The attempts: none was made since.
    wanted = (change.version + 1, change.at, change.due_at, change.attempts)
    if (timer.version, timer.next_attempt_at, timer.due_at, timer.attempts) != wanted:
        raise _changed(change.id) from failure
    return timer


def _changed(timer_id: int) -> TimerChanged:
    return TimerChanged(f"Timer {timer_id} has just changed; look at it again.")


def _not_found(timer_id: int) -> TimerNotFound:
    return TimerNotFound(f"There is no timer {timer_id}.")


def _in_flight(timer_id: int) -> TimerInFlight:
    return TimerInFlight(f"The webhook of timer {timer_id} is on the wire right now.")
