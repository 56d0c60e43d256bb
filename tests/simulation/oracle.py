"""The oracle: keeps what each client was promised, and checks the invariants at every step.

It observes each effect at the instant it happens, even if the caller never sees the response. It
judges by the clients' requests, the store's grants and the receivers' responses. Only the final
checks read rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from chalicelib.aws.key_holder import names_of
from chalicelib.domain.claim import Claim, ClaimResult, Reschedule, Settlement, Superseded
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.timer import UNDELIVERED, Status, Timer
from chalicelib.domain.webhook import Call
from chalicelib.service.timers import TimerRequest
from tests.simulation.fault_profile import FaultProfile
from tests.simulation.invariants import claims, final, keys, responses, sending
from tests.simulation.promises import (
    DeliveryProgress,
    Lease,
    Promise,
    Removal,
    SentWebhook,
    progress_of,
)
from tests.simulation.virtual_time import VirtualTime

RECEIVERS = 3
"""The hosts that timers call, in turn."""


@dataclass(frozen=True, slots=True)
class _KeyedRequest:
    """A request to set the timer of a key."""

    tenant: str
    key: str
    request: TimerRequest


@dataclass(frozen=True, slots=True)
class _RunningRemoval:
    """A request to remove all timers of a tenant, or those with a label, that may go on."""

    tenant: str
    label: str | None
    removal: Removal

    def concerns(self, promise: Promise) -> bool:
        labels = promise.request.labels
        return promise.tenant == self.tenant and (self.label is None or self.label in labels)


class Oracle:
    """Is told everything that happens; raises ``InvariantViolation`` at the first violation."""

    def __init__(self, time: VirtualTime, profile: FaultProfile, *, max_attempts: int) -> None:
        """``max_attempts`` are what a timer gets that does not ask for fewer."""
        self.promises: list[Promise] = []
        self.counts: Counter[str] = Counter()
        self._time = time
        self._max_attempts = max_attempts
        self._clocks_differ = profile.clocks_differ
        self._clock_may_go_back = profile.clock_set > 0
        self._by_url: dict[str, Promise] = {}
        self._by_id: dict[tuple[str, int], Promise] = {}
        self._running_removals: list[_RunningRemoval] = []
        self._keyed: dict[str, _KeyedRequest] = {}
        """By the URL, of which each request has one of its own."""
        self.stored_rows: Callable[[], Sequence[Timer]] = list
        """Returns the rows as they are now. The environment sets it."""

    # Requests of clients, and the responses to them.

    def requested(self, tenant: str, request: TimerRequest, now: float) -> Promise:
        """Note a request for a timer. It gets a URL of its own, by which it is known for ever."""
        number = len(self.promises)
        failure_url = f"{_host(number)}failed/{number}" if request.options.on_failure_url else None
        options = replace(request.options, on_failure_url=failure_url)
        request = replace(request, url=f"{_host(number)}{number}", options=options)
        due_at = request.when.due_at(now)
        promise = Promise(
            tenant=tenant,
            url=request.url,
            request=request,
            requested_at=self._time.now,
            dues=[(self._time.now, due_at)],
            not_before=due_at,
        )
        self._add(promise)
        if failure_url is not None:
            self._by_url[failure_url] = promise
        self.counts["requested"] += 1
        return promise

    def _add(self, promise: Promise) -> None:
        promise.removals += [
            each.removal for each in self._running_removals if each.concerns(promise)
        ]
        self.promises.append(promise)
        self._by_url[promise.url] = promise

    def keyed_requested(self, tenant: str, key: str, request: TimerRequest) -> TimerRequest:
        """Note a request to set the timer of a key. It gets a URL of its own."""
        number = len(self._keyed)
        request = replace(request, url=f"{_host(number)}keyed/{number}")
        self._keyed[request.url] = _KeyedRequest(tenant, key, request)
        return request

    def acknowledged(self, promise: Promise, timer: Timer) -> None:
        """Note the response to ``requested``."""
        responses.response_names_the_stored_timer(promise, timer)
        promise.acknowledged_at = self._time.now
        self.counts["acknowledged"] += 1

    def acknowledged_once(self, promise: Promise, done: SetOnce) -> None:
        """Note the response to an idempotent request, the first or a repeated one."""
        if not promise.removals:
            responses.repeated_request_gets_the_same_timer(promise, done)
        if promise.acknowledged_at is None:
            promise.acknowledged_at = self._time.now
        self.counts["repeated" if done.replayed else "acknowledged"] += 1

    def acknowledged_by_key(self, tenant: str, timer: Timer) -> Promise:
        """Note the response to a request to set the timer of a key."""
        promise = self._promise(tenant, timer.id)
        if promise.acknowledged_at is None:
            promise.acknowledged_at = self._time.now
        self.counts["keyed"] += 1
        return promise

    def removal_requested(self, promises: Iterable[Promise], *, purge: bool = False) -> Removal:
        """Note a request to remove timers."""
        removal = Removal(purge=purge, requested_at=self._time.now)
        for promise in promises:
            promise.removals.append(removal)
        return removal

    def purge_requested(self, tenant: str) -> Removal:
        """Note a request to remove all timers of ``tenant``."""
        return self._many_to_remove(tenant, None, purge=True)

    def label_cancel_requested(self, tenant: str, label: str) -> Removal:
        """Note a request to cancel all timers of ``tenant`` with this label."""
        return self._many_to_remove(tenant, label, purge=False)

    def _many_to_remove(self, tenant: str, label: str | None, *, purge: bool) -> Removal:
        removal = Removal(purge=purge, requested_at=self._time.now)
        running = _RunningRemoval(tenant, label, removal)
        for promise in filter(running.concerns, self.promises):
            promise.removals.append(removal)
        self._running_removals.append(running)
        return removal

    def purge_acknowledged(self, tenant: str, removal: Removal) -> None:
        """Note the response to a purge. It says nothing about timers created meanwhile."""
        purge = Removal(
            purge=True, requested_at=removal.requested_at, acknowledged_at=self._time.now
        )
        for promise in self.promises:
            created_before = promise.acknowledged_at is not None and (
                promise.acknowledged_at <= removal.requested_at
            )
            if promise.tenant == tenant and created_before:
                promise.removals.append(purge)

    def removals_ended(self, removal: Removal) -> None:
        """Note that a request can remove nothing more, not even by a call applied late."""
        self._running_removals = [
            each for each in self._running_removals if each.removal is not removal
        ]

    def moved(
        self, promise: Promise, timer: Timer, delay_ms: int, asked_at: float, now: float
    ) -> None:
        """Check the response to a request, made at ``asked_at``, to be due in ``delay_ms``."""
        if not self._clocks_differ and promise.bound is None:
            responses.moved_timer_is_due_as_requested(promise, timer, delay_ms, asked_at, now)

    def read(self, promise: Promise, timer: Timer | None, now: float, since: float) -> None:
        """Check the response to a read that began at ``since`` (``now``: the reader's clock)."""
        responses.acknowledged_timer_exists(promise, timer)
        if timer is None:
            return
        responses.removed_timer_is_gone(promise, since)
        time_left_s = timer.time_left(now)
        responses.time_left_is_right(promise, time_left_s, now, since)
        if not self._clocks_differ:
            responses.expired_timer_stays_expired(promise, time_left_s)
        moved_meanwhile = any(at > since for at, _ in promise.dues)
        if time_left_s == 0 and not moved_meanwhile:
            promise.seen_expired = True

    def listed(self, tenant: str, timers: Sequence[Timer], now: float, since: float) -> None:
        """Check a whole list that a client began to read at ``since``."""
        responses.list_is_newest_first_without_duplicates(timers)
        by_id = {timer.id: timer for timer in timers}
        unknown = {timer.url: timer for timer in timers if timer.url not in self._by_url}
        responses.only_requested_timers_are_listed(unknown)
        for timer in timers:
            owner = self._by_url[timer.url]
            responses.tenants_see_only_their_own_timers(
                owner, timer if owner.tenant != tenant else None
            )
        for promise in self.promises:
            if promise.tenant != tenant:
                continue
            listed = by_id.get(promise.id or 0)
            acknowledged = promise.acknowledged_at
            if listed is not None or (acknowledged is not None and acknowledged < since):
                self.read(promise, listed, now, since)

    # Effects in the store, at the instant they happen.

    def stored(self, timer: Timer) -> None:
        """Note a new row."""
        back = self._by_id.get((timer.tenant, timer.id))
        if back is not None and back.removals and names_of(timer):
            self._comes_back(back, timer)
            return
        promise = self._stored_by_key(timer) if timer.key else self._by_url[timer.url]
        if promise.id not in (None, timer.id) and not promise.removals:
            keys.idempotency_key_has_one_timer(promise, timer)
        if timer.idempotency is not None:  # the request that was carried out says when it is due
            promise.dues, promise.not_before = [(self._time.now, timer.due_at)], timer.due_at
        claims.id_is_used_once(promise, self._by_id.setdefault((timer.tenant, timer.id), promise))
        promise.id = timer.id

    def _comes_back(self, promise: Promise, timer: Timer) -> None:
        """Note that a late write has brought a removed timer back (docs/simulation.md)."""
        promise.removals = [Removal(purge=True, requested_at=self._time.now)]
        promise.concluded = False
        promise.url, promise.not_before = timer.url, timer.wakeup().at
        promise.changed_at = self._time.now
        promise.recorded.clear()
        promise.recorded_before = 0
        promise.dues.append((self._time.now, timer.due_at))
        self._by_url[timer.url] = promise
        self.counts["came back"] += 1

    def _stored_by_key(self, timer: Timer) -> Promise:
        wanted = self._keyed[timer.url]
        promise = Promise(
            tenant=timer.tenant,
            url=timer.url,
            request=wanted.request,
            requested_at=self._time.now,
            dues=[(self._time.now, timer.due_at)],
            not_before=timer.due_at,
            key=timer.key,
            bound=timer.no_later_than,
        )
        self._add(promise)
        keys.bound_is_not_passed(promise, timer.due_at)
        keys.key_has_one_outstanding_timer(timer, self.stored_rows())
        return promise

    def replaced(self, after: Timer) -> None:
        """Note that the timer of a key was moved, and what it sends replaced."""
        promise = self._promise(after.tenant, after.id)
        # A lease counts even after its end: its sender may be slow and still be calling.
        claims.claimed_timer_is_not_changed(promise, -math.inf)
        keys.bound_is_only_tightened(promise, after)
        keys.bound_is_not_passed(promise, after.due_at)
        promise.bound = after.no_later_than
        promise.url, promise.request = after.url, self._keyed[after.url].request
        self._by_url[after.url] = promise
        promise.not_before, promise.changed_at = after.wakeup().at, self._time.now
        promise.recorded_before = len(promise.recorded)
        promise.dues.append((self._time.now, after.due_at))
        promise.seen_expired = False
        self.counts["replaced"] += 1

    def claimed(self, claim: Claim, timer: Timer) -> None:
        """Note a claim that was granted."""
        claims.stale_wakeup_claims_nothing(claim, timer)
        lease = Lease(
            token=claim.lease.token,
            until=claim.lease.until,
            claimed_at=self._time.now,
            now=claim.now,
        )
        promise = self._promise(timer.tenant, timer.id)
        for earlier in promise.leases:
            if earlier.until <= claim.now:  # it stays over, even if the clock is set back
                earlier.until = -math.inf
        promise.leases.append(lease)
        if self._time.current is not None:
            progress_of(self._time.current).lease = lease

    def claim_refused(self, result: ClaimResult) -> None:
        """Note a claim that was refused."""
        if self._time.current is not None:
            progress = progress_of(self._time.current)
            progress.dropped = isinstance(result, Superseded)

    def settled(self, settlement: Settlement) -> None:
        """Note a settlement that was granted."""
        promise = self._promise(settlement.tenant, settlement.id)
        lease = next(each for each in promise.leases if each.token == settlement.token)
        claims.stale_sender_settles_nothing(promise, lease, settlement)
        claims.settlement_matches_the_outcome(settlement, lease)
        if settlement.status is Status.EXPIRED and not self._clock_may_go_back:
            claims.expired_timer_was_too_late(promise, settlement)
        lease.settled = True
        lease.retried = settlement.next_attempt_at is not None
        if lease.sent is not None:
            promise.recorded.append(lease.sent)
        if settlement.repeat and settlement.next_attempt_at is not None:
            self._repeats(promise, settlement.next_attempt_at)
        elif settlement.next_attempt_at is None:
            promise.concluded = True
        elif self._clock_may_go_back:  # then the time of the retry may lie before the due time
            promise.not_before = settlement.next_attempt_at
        else:
            promise.not_before = max(promise.not_before, settlement.next_attempt_at)

    def _repeats(self, promise: Promise, at: int) -> None:
        promise.repeats += 1
        promise.not_before = at
        promise.recorded_before = len(promise.recorded)
        promise.dues.append((self._time.now, at))
        promise.seen_expired = False
        self.counts["repeats"] += 1

    def settle_refused(self) -> None:
        """Note a settlement that was refused."""
        if self._time.current is not None:
            progress_of(self._time.current).superseded = True

    def cancelled(self, tenant: str, timer_id: int, now: int) -> None:
        """Note a cancel that was granted."""
        promise = self._promise(tenant, timer_id)
        claims.claimed_timer_is_not_changed(promise, now)
        claims.only_timers_to_be_removed_are_cancelled(promise)

    def rescheduled(self, change: Reschedule) -> None:
        """Note a move, a fire or a replay that was granted."""
        promise = self._promise(change.tenant, change.id)
        claims.claimed_timer_is_not_changed(promise, change.now)
        promise.concluded = False
        promise.not_before = change.at
        promise.recorded_before = len(promise.recorded) - change.attempts
        keys.bound_is_not_passed(promise, change.due_at)
        if change.due_at != promise.due_at:
            promise.dues.append((self._time.now, change.due_at))
            promise.seen_expired = False

    def leases_voided(self) -> None:
        """Note that a new dispatcher has ended all claims of the dead one."""
        for promise in self.promises:
            for lease in promise.leases:
                lease.until = -math.inf

    # Calls to receivers.

    def latest_lease(self, call: Call) -> Lease:
        """Return the latest claim of the timer that is called for."""
        return self._by_url[call.url.rpartition("/")[0]].leases[-1]

    def webhook_starts(
        self, call: Call, now: float, progress: DeliveryProgress
    ) -> tuple[Promise, SentWebhook]:
        """Note a call that starts at ``now`` by its sender's clock, and check that it may."""
        url = call.url.rpartition("/")[0]
        promise = self._by_url[url]
        sending.webhook_names_its_timer(promise, call.url)
        self._check_start(promise, progress.lease, now)
        planned = max(promise.not_before, promise.changed_at)
        sent = SentWebhook(started_at=now, lateness_ms=now - planned)
        if url == promise.request.options.on_failure_url:
            promise.failure_notices += 1
            self.counts["failure notices"] += 1
            return promise, sent
        sending.first_call_is_not_too_late(promise, now)
        promise.sent.append(sent)
        if progress.lease is not None:
            progress.lease.sent = sent
        self.counts["sent"] += 1
        return promise, sent

    def _check_start(self, promise: Promise, lease: Lease | None, now: float) -> None:
        # A clock that was set back after the claim does not make the call early.
        claimed_now = lease.now if lease is not None and self._clock_may_go_back else now
        sending.no_webhook_is_early(promise, max(claimed_now, now))
        sending.no_webhook_after_a_final_outcome(promise)
        sending.one_sender_at_a_time(promise, lease, now)
        claimed_at = lease.claimed_at if lease else self._time.now
        sending.no_webhook_after_removal(promise, claimed_at, self._time.now)

    def webhook_received(self) -> None:
        """Note that a receiver got a webhook."""
        self.counts["received"] += 1

    # The end of the run.

    def check_end(self, rows: Sequence[Timer], *, fault_free: bool) -> None:
        """Compare every promise with the calls that were made and the rows that are stored."""
        found = {(row.tenant, row.id): row for row in rows}
        for promise in self.promises:
            row = found.pop((promise.tenant, promise.id or 0), None)
            responses.acknowledged_timer_exists(promise, row)
            if row is not None:
                self._check_row(promise, row)
            if fault_free and promise.must_exist:
                final.without_faults_each_attempt_is_made_once(promise)
                final.without_faults_webhooks_are_on_time(promise)
        final.only_requested_timers_are_stored(found)

    def _check_row(self, promise: Promise, row: Timer) -> None:
        outcomes = [sent.outcome for sent in promise.sent if sent.outcome is not None]
        responses.removed_timer_is_gone(promise, since=math.inf)
        final.every_timer_is_settled(promise, row)
        final.every_recorded_attempt_counts(promise, row)
        final.no_attempt_has_a_negative_duration(promise, row)
        final.attempt_records_are_true(promise, row)
        final.fired_timer_was_received(promise, row, outcomes)
        if row.status in UNDELIVERED:
            final.failure_notice_is_sent(promise)
            self.counts[row.status.value] += 1
        if row.status is Status.FAILED:
            final.timer_fails_only_after_all_attempts(promise, row, outcomes, self._max_attempts)

    def _promise(self, tenant: str, timer_id: int) -> Promise:
        return self._by_id[(tenant, timer_id)]


def _host(number: int) -> str:
    return f"https://receiver{number % RECEIVERS}.example/"
