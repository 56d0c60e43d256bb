"""The oracle: keeps what each client was promised, and checks the invariants at every step.

It observes each effect at the instant it happens, even if the caller never sees the response. It
judges by the clients' requests, the store's grants and the receivers' responses. Only the final
checks read rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from chalicelib.domain.claim import Claim, ClaimResult, Reschedule, Settlement, Superseded
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Call
from chalicelib.service.timers import TimerRequest
from tests.simulation.fault_profile import FaultProfile
from tests.simulation.invariants import claims, final, responses, sending
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
        self._by_key: dict[tuple[str, int], Promise] = {}
        self._running_purges: list[tuple[str, Removal]] = []

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
        promise.removals += [purge for of, purge in self._running_purges if of == tenant]
        self.promises.append(promise)
        self._by_url[request.url] = promise
        if failure_url is not None:
            self._by_url[failure_url] = promise
        self.counts["requested"] += 1
        return promise

    def acknowledged(self, promise: Promise, timer: Timer) -> None:
        """Note the response to ``requested``."""
        responses.response_names_the_stored_timer(promise, timer)
        promise.acknowledged_at = self._time.now
        self.counts["acknowledged"] += 1

    def removal_requested(self, promises: Iterable[Promise], *, purge: bool = False) -> Removal:
        """Note a request to remove timers."""
        removal = Removal(purge=purge, requested_at=self._time.now)
        for promise in promises:
            promise.removals.append(removal)
        return removal

    def purge_requested(self, tenant: str) -> Removal:
        """Note a request to remove all timers of ``tenant``."""
        mine = [promise for promise in self.promises if promise.tenant == tenant]
        removal = self.removal_requested(mine, purge=True)
        self._running_purges.append((tenant, removal))
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

    def purge_ended(self, tenant: str, removal: Removal) -> None:
        """Note that a purge can remove nothing more, not even by a call applied late."""
        self._running_purges.remove((tenant, removal))

    def moved(
        self, promise: Promise, timer: Timer, delay_ms: int, asked_at: float, now: float
    ) -> None:
        """Check the response to a request, made at ``asked_at``, to be due in ``delay_ms``."""
        if not self._clocks_differ:
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
        by_url = {timer.url: timer for timer in timers}
        for promise in self.promises:
            timer = by_url.pop(promise.url, None)
            if promise.tenant != tenant:
                responses.tenants_see_only_their_own_timers(promise, timer)
            elif timer is not None:
                self.read(promise, timer, now, since)
            elif promise.acknowledged_at is not None and promise.acknowledged_at < since:
                self.read(promise, None, now, since)
        responses.only_requested_timers_are_listed(by_url)

    # Effects in the store, at the instant they happen.

    def stored(self, timer: Timer) -> None:
        """Note a new row."""
        promise = self._by_url[timer.url]
        claims.id_is_used_once(promise, self._by_key.setdefault((timer.tenant, timer.id), promise))
        promise.id = timer.id

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
        lease.settled = True
        lease.retried = settlement.next_attempt_at is not None
        if lease.sent is not None:
            promise.recorded.append(lease.sent)
        if settlement.next_attempt_at is None:
            promise.concluded = True
        elif self._clock_may_go_back:  # then the time of the retry may lie before the due time
            promise.not_before = settlement.next_attempt_at
        else:
            promise.not_before = max(promise.not_before, settlement.next_attempt_at)

    def settle_refused(self) -> None:
        """Note a settlement that was refused."""
        if self._time.current is not None:
            progress_of(self._time.current).superseded = True

    def cancelled(self, tenant: str, timer_id: int, now: int) -> None:
        """Note a cancel that was granted."""
        claims.claimed_timer_is_not_changed(self._promise(tenant, timer_id), now)

    def rescheduled(self, change: Reschedule) -> None:
        """Note a move or a replay that was granted."""
        promise = self._promise(change.tenant, change.id)
        claims.claimed_timer_is_not_changed(promise, change.now)
        promise.concluded = False
        promise.not_before = change.at
        promise.recorded_before = len(promise.recorded)
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
        sent = SentWebhook(started_at=now, lateness_ms=now - promise.not_before)
        if url == promise.request.options.on_failure_url:
            promise.failure_notices += 1
            self.counts["failure notices"] += 1
            return promise, sent
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
        if row.status is Status.FAILED:
            final.timer_fails_only_after_all_attempts(promise, row, outcomes, self._max_attempts)
            final.failure_notice_is_sent(promise)
            self.counts["failed"] += 1

    def _promise(self, tenant: str, timer_id: int) -> Promise:
        return self._by_key[(tenant, timer_id)]


def _host(number: int) -> str:
    return f"https://receiver{number % RECEIVERS}.example/"
