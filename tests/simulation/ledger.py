"""What was promised, what happened, and the rules that both must keep.

The ledger sees everything at the very moment it is done, whatever the answer to it becomes. It
believes no row of the store: who was called, and what callers were told, decides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from chalicelib.domain.attempt_log import GONE
from chalicelib.domain.retry import succeeded
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.ports import Claim, Refusal, Refused, Reschedule, Settlement
from chalicelib.service.timers import TimerRequest
from tests.simulation.hub import Hub, Task
from tests.simulation.weather import Weather

HOST = "https://receiver.example/"
FAILED = "https://receiver.example/failed/"

CALM_LATE_MS = 1_500.0
"""How late a webhook may be when nothing goes wrong."""


class Broken(BaseException):
    """A rule was broken. No handler of the code under test catches it."""

    def __init__(self, rule: str, *about: object) -> None:
        super().__init__(" ".join(map(str, (rule + ":", *about))))
        self.rule = rule


@dataclass(eq=False, slots=True)
class Removal:
    """One request to cancel or purge. ``refused``: it said that it removed nothing."""

    purge: bool
    asked_at: float
    acknowledged_at: float | None = None
    refused: bool = False


@dataclass(eq=False, slots=True)
class Sent:
    """One webhook. ``outcome`` is what the sender saw."""

    started_at: float
    lateness: float
    received: bool = False
    outcome: Outcome | None = None


@dataclass(eq=False, slots=True)
class Lease:
    """A claim that was carried out, whoever heard of it."""

    token: str
    until: float
    taken_at: float
    now: int
    """By the clock of who took it."""
    settled: bool = False
    retried: bool = False
    """It was settled as to be called again."""
    sent: Sent | None = None


@dataclass(eq=False, slots=True)
class Promise:
    """One request to set a timer, and all that came of it."""

    tenant: str
    url: str
    asked_at: float
    order: TimerRequest
    dues: list[tuple[float, int]]
    """When it was due, and from which moment on."""
    wanted_at: int
    """Before this, no call may start: the due time at first, then that of each retry."""

    id: int | None = None
    acknowledged_at: float | None = None
    concluded: bool = False
    """An outcome that ends the timer was recorded."""
    recorded: list[Sent] = field(default_factory=list)
    """The attempts whose outcome was recorded, all of them."""
    recorded_before: int = 0
    """How many of them were made before it was last replayed."""
    noticed: int = 0
    expired: bool = False
    """Somebody was told that no time is left."""
    removals: list[Removal] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    @property
    def due_at(self) -> int:
        """Return when it is due, as far as anything was written."""
        return self.dues[-1][1]

    @property
    def received(self) -> int:
        return sum(sent.received for sent in self.sent)

    def removed(self, at: float) -> Removal | None:
        """Return the removal that was acknowledged before ``at``."""
        for removal in self.removals:
            if removal.acknowledged_at is not None and removal.acknowledged_at < at:
                return removal
        return None

    @property
    def kept(self) -> bool:
        """Tell whether it was acknowledged and nobody may have removed it."""
        return self.acknowledged_at is not None and all(each.refused for each in self.removals)

    def __str__(self) -> str:
        return f"timer {self.tenant}/{self.id} of {self.url}"


@dataclass(eq=False, slots=True)
class Doing:
    """What one task is doing: the delivery of a wake-up, and how far it got."""

    lease: Lease | None = None
    void: bool = False
    """There was nothing to do for its wake-up."""
    superseded: bool = False
    """Its settle came too late: another sender had claimed the timer."""
    unwoken: bool = False
    """A wake-up could not be registered."""


def doing(task: Task) -> Doing:
    """Return what ``task`` is doing."""
    if not isinstance(task.context, Doing):
        task.context = Doing()
    return task.context


class _Unseen:
    """A row that was not looked at."""


UNSEEN = _Unseen()
VERSIONS = "a wake-up of another version does nothing, and one of this version is not dropped"


class Ledger:
    """Notes what is done, and raises ``Broken`` at the first thing that must not be."""

    def __init__(self, hub: Hub, weather: Weather, *, attempts: int) -> None:
        """``attempts`` are what a timer gets that does not ask for fewer."""
        self.promises: list[Promise] = []
        self.counted: Counter[str] = Counter()
        self._hub = hub
        self._attempts = attempts
        self._clocks_differ = weather.clocks_differ
        self._put_back = weather.clock_set > 0
        self._by_url: dict[str, Promise] = {}
        self._by_key: dict[tuple[str, int], Promise] = {}
        self._purges: list[tuple[str, Removal]] = []

    # What callers ask for, and what they are told.

    def asked(self, tenant: str, wish: TimerRequest, now: float) -> Promise:
        """Note that a timer is asked for; its url is made new, so that it is known for ever."""
        number = len(self.promises)
        told = f"{FAILED}{number}" if wish.on_failure_url else None
        order = replace(wish, url=f"{HOST}{number}", on_failure_url=told)
        due_at = math.ceil(now) + order.delay_ms
        promise = Promise(
            tenant=tenant,
            url=order.url,
            order=order,
            asked_at=self._hub.now,
            dues=[(self._hub.now, due_at)],
            wanted_at=due_at,
        )
        promise.removals += [purge for of, purge in self._purges if of == tenant]
        self.promises.append(promise)
        self._by_url[order.url] = promise
        if told is not None:
            self._by_url[told] = promise
        self.counted["asked"] += 1
        return promise

    def acknowledged(self, promise: Promise, timer: Timer) -> None:
        """Note the answer to ``asked``."""
        if (timer.id, timer.due_at) != (promise.id, promise.dues[0][1]):
            raise Broken("what is acknowledged is what was stored", promise, timer)
        promise.acknowledged_at = self._hub.now
        self.counted["acknowledged"] += 1

    def removing(self, promises: Iterable[Promise], *, purge: bool = False) -> Removal:
        """Note that timers are asked to be removed."""
        removal = Removal(purge=purge, asked_at=self._hub.now)
        for promise in promises:
            promise.removals.append(removal)
        return removal

    def purging(self, tenant: str) -> Removal:
        """Note that all timers of ``tenant`` are asked to be removed."""
        mine = [promise for promise in self.promises if promise.tenant == tenant]
        removal = self.removing(mine, purge=True)
        self._purges.append((tenant, removal))
        return removal

    def purged(self, tenant: str, removal: Removal) -> None:
        """Note that a purge is acknowledged. It promises nothing for what was set meanwhile."""
        sure = Removal(purge=True, asked_at=removal.asked_at, acknowledged_at=self._hub.now)
        for promise in self.promises:
            set_before = promise.acknowledged_at is not None and (
                promise.acknowledged_at <= removal.asked_at
            )
            if promise.tenant == tenant and set_before:
                promise.removals.append(sure)

    def purge_over(self, tenant: str, removal: Removal) -> None:
        """Note that a purge cannot take anything any more."""
        self._purges.remove((tenant, removal))

    def moved(
        self, promise: Promise, timer: Timer, delay_ms: int, asked: float, now: float
    ) -> None:
        """Check the answer to a request, made at ``asked``, to be due in ``delay_ms`` instead."""
        if self._clocks_differ:
            return
        if not asked <= timer.due_at - delay_ms <= math.ceil(now):
            raise Broken("what was moved is due when it was asked for", promise, timer, delay_ms)

    def told(self, promise: Promise, timer: Timer | None, now: float, since: float) -> None:
        """Check what a reader was told at ``now`` (by its clock) who had asked at ``since``."""
        if timer is None:
            if promise.kept:
                raise Broken("an acknowledged timer is there", promise)
            return
        removal = promise.removed(since)
        if removal is not None:
            raise Broken("what was removed is gone", promise, removal)
        self._check_time_left(promise, timer, now, since)

    def listed(self, tenant: str, timers: Sequence[Timer], now: float, since: float) -> None:
        """Check a whole list."""
        ids = [timer.id for timer in timers]
        if ids != sorted(set(ids), reverse=True):
            raise Broken("a list is in order, and names nothing twice", ids)
        by_url = {timer.url: timer for timer in timers}
        for promise in self.promises:
            timer = by_url.pop(promise.url, None)
            if promise.tenant != tenant:
                if timer is not None:
                    raise Broken("nobody sees another's timers", promise)
            elif timer is not None:
                self.told(promise, timer, now, since)
            elif promise.acknowledged_at is not None and promise.acknowledged_at < since:
                self.told(promise, None, now, since)
        if by_url:
            raise Broken("only what was set is listed", by_url)

    def _check_time_left(self, promise: Promise, timer: Timer, now: float, since: float) -> None:
        told = timer.time_left(now)
        before = [due_at for at, due_at in promise.dues if at <= since]
        meanwhile = [due_at for at, due_at in promise.dues if at > since]
        right = [_time_left(due_at, now) for due_at in (*before[-1:], *meanwhile)]
        # The clock of whoever calls may be ahead of the reader's: then it has expired already.
        if told not in right and not (told == 0 and (promise.leases or promise.expired)):
            raise Broken("the time left is right", promise, f"told {told}, is {right}")
        if promise.expired and told and not self._clocks_differ:
            raise Broken("what has expired stays so", promise, told)
        promise.expired = promise.expired or (told == 0 and not meanwhile)

    # What the store does, at the moment it does it.

    def stored(self, timer: Timer) -> None:
        """Note a new row."""
        promise = self._by_url[timer.url]
        key = (timer.tenant, timer.id)
        other = self._by_key.setdefault(key, promise)
        if other is not promise:
            raise Broken("an id is used once", promise, other)
        promise.id = timer.id

    def claimed(self, claim: Claim, timer: Timer) -> None:
        """Note a claim that was granted."""
        if timer.version != claim.wakeup.version:
            raise Broken(VERSIONS, claim, timer)
        lease = Lease(
            token=claim.token, until=claim.lease_until, taken_at=self._hub.now, now=claim.now
        )
        promise = self._promise(timer.tenant, timer.id)
        for earlier in promise.leases:
            if earlier.until <= claim.now:  # and stays over, when the clock is put back
                earlier.until = -math.inf
        promise.leases.append(lease)
        if self._hub.current is not None:
            doing(self._hub.current).lease = lease

    def refused(self, claim: Claim, refused: Refused, row: Timer | _Unseen | None = UNSEEN) -> None:
        """Note a claim that was refused, and check it where the ``row`` was seen just before."""
        void = refused.refusal is Refusal.VOID
        if self._hub.current is not None:
            doing(self._hub.current).void = void
        if isinstance(row, _Unseen):
            return
        outstanding = row is not None and row.next_attempt_at is not None
        meant = row is not None and row.version == claim.wakeup.version
        if void == (outstanding and meant):
            raise Broken(VERSIONS, claim, refused, row)

    def settled(self, settlement: Settlement) -> None:
        """Note a settlement that was granted."""
        promise = self._promise(settlement.tenant, settlement.id)
        lease = next(each for each in promise.leases if each.token == settlement.token)
        if lease is not promise.leases[-1] or promise.concluded:
            raise Broken("a sender whose timer another has claimed settles nothing", settlement)
        self._check_settlement(settlement, lease)
        lease.settled = True
        lease.retried = settlement.next_attempt_at is not None
        if lease.sent is not None:
            promise.recorded.append(lease.sent)
        if settlement.next_attempt_at is None:
            promise.concluded = True
        elif self._put_back:  # by a clock that was put back, it may seem not even due yet
            promise.wanted_at = settlement.next_attempt_at
        else:
            promise.wanted_at = max(promise.wanted_at, settlement.next_attempt_at)

    def cancelled(self, tenant: str, timer_id: int, now: int) -> None:
        """Note a cancel that was granted."""
        self._check_free(self._promise(tenant, timer_id), now)

    @staticmethod
    def _check_free(promise: Promise, now: int) -> None:
        latest = promise.leases[-1] if promise.leases else None
        if latest is not None and not latest.settled and now < latest.until:
            raise Broken("nobody takes a timer from its sender", promise, latest)

    def rescheduled(self, change: Reschedule) -> None:
        """Note another time for a timer, or another chance."""
        promise = self._promise(change.tenant, change.id)
        self._check_free(promise, change.now)
        promise.concluded = False
        promise.wanted_at = change.at
        promise.recorded_before = len(promise.recorded)
        if change.due_at != promise.due_at:
            promise.dues.append((self._hub.now, change.due_at))
            promise.expired = False

    @staticmethod
    def _check_settlement(settlement: Settlement, lease: Lease) -> None:
        if lease.sent is None or lease.sent.outcome is None:
            return
        if succeeded(lease.sent.outcome) != (settlement.status is Status.FIRED):
            raise Broken("what is recorded is what was seen", settlement, lease.sent.outcome)

    def voided(self) -> None:
        """Note that all claims have ended: whoever made them is dead."""
        for promise in self.promises:
            for lease in promise.leases:
                lease.until = -math.inf

    def too_late(self) -> None:
        """Note a settlement that was refused."""
        if self._hub.current is not None:
            doing(self._hub.current).superseded = True

    # What is sent.

    def latest_lease(self, call: Call) -> Lease:
        """Return the latest claim of the timer that is called."""
        return self._by_url[call.url.rpartition("/")[0]].leases[-1]

    def starts(self, call: Call, now: float, mine: Doing) -> tuple[Promise, Sent]:
        """Note a call that begins at ``now`` by the sender's clock, and check that it may."""
        url, _, timer_id = call.url.rpartition("/")
        promise = self._by_url[url]
        if str(promise.id) != timer_id:
            raise Broken("a webhook names its timer", promise, call.url)
        self._check_start(promise, mine, now)
        sent = Sent(started_at=now, lateness=now - promise.wanted_at)
        if url == promise.order.on_failure_url:
            promise.noticed += 1
            self.counted["noticed"] += 1
            return promise, sent
        promise.sent.append(sent)
        if mine.lease is not None:
            mine.lease.sent = sent
        self.counted["sent"] += 1
        return promise, sent

    def _check_start(self, promise: Promise, mine: Doing, now: float) -> None:
        claimed = mine.lease.now if mine.lease is not None and self._put_back else now
        if max(claimed, now) < promise.wanted_at:
            raise Broken("no webhook is early", promise, promise.wanted_at - now, "ms")
        if promise.concluded:
            raise Broken("no webhook once its outcome is recorded", promise)
        for lease in promise.leases:
            if lease is not mine.lease and not lease.settled and now < lease.until:
                raise Broken("one sender at a time", promise, lease)
        removal = promise.removed(self._hub.now)
        claimed_at = mine.lease.taken_at if mine.lease else self._hub.now
        if removal is None:
            return
        # A purge takes what is in flight too: whoever has claimed by then may still call.
        assert removal.acknowledged_at is not None
        if not removal.purge or claimed_at > removal.acknowledged_at:
            raise Broken("no webhook after a removal", promise, removal)

    def received(self, promise: Promise, sent: Sent) -> None:
        """Note that a webhook arrived."""
        sent.received = True
        self.counted["received"] += 1

    # What is left in the end.

    def check_end(self, rows: Sequence[Timer], *, calm: bool) -> None:
        """Check every promise against what was received and what is stored."""
        found = {(row.tenant, row.id): row for row in rows}
        for promise in self.promises:
            row = found.pop((promise.tenant, promise.id or 0), None)
            if row is None and promise.kept:
                raise Broken("an acknowledged timer is there", promise)
            if row is not None:
                self._check_row(promise, row)
            if calm and promise.kept:
                self._check_calm(promise)
        if found:
            raise Broken("only what was set is stored", found)

    def _check_row(self, promise: Promise, row: Timer) -> None:
        removal = promise.removed(math.inf)
        if removal is not None:
            raise Broken("what was removed is gone", promise, removal)
        if row.next_attempt_at is not None or row.status is Status.PENDING:
            raise Broken("every timer is called or given up in the end", promise, row)
        self._check_record(promise, row)
        outcomes = [sent.outcome for sent in promise.sent if sent.outcome is not None]
        if row.status is Status.FIRED and not any(map(succeeded, outcomes)):
            raise Broken("what has fired was received", promise, row)
        if row.status is Status.FAILED:
            self._check_failed(promise, row, outcomes)

    @staticmethod
    def _check_record(promise: Promise, row: Timer) -> None:
        if row.attempts != len(promise.recorded) - promise.recorded_before:
            raise Broken("every recorded answer counts", promise, row, len(promise.recorded))
        log = [(made.at, made.status, made.error) for made in row.log if not made.notice]
        seen = [
            (math.floor(sent.started_at), sent.outcome.status, sent.outcome.error)
            for sent in promise.recorded
            if sent.outcome is not None
        ]
        if any(made.took_ms < 0 for made in row.log):
            raise Broken("no attempt takes less than no time", promise, row.log)
        if log != seen[-len(log) :] or (seen and not log):
            raise Broken("the record is what happened", promise, row.log, seen)

    def _check_failed(self, promise: Promise, row: Timer, outcomes: Sequence[Outcome]) -> None:
        gone = any(outcome.status == GONE for outcome in outcomes)
        allowed = min(self._attempts, promise.order.max_attempts or self._attempts)
        if not gone and row.attempts < allowed:
            raise Broken("no timer fails before its attempts are spent", promise, row)
        if promise.order.on_failure_url and not promise.noticed:
            raise Broken("who wants to be told of a failure is told", promise)
        self.counted["failed"] += 1

    def _check_calm(self, promise: Promise) -> None:
        accepted = sum(succeeded(sent.outcome) for sent in promise.sent if sent.outcome)
        if accepted > 1 or len(promise.sent) != len(promise.recorded):
            raise Broken("in calm weather every attempt is made once", promise)
        late = max((sent.lateness for sent in promise.sent), default=0.0)
        if late > CALM_LATE_MS:
            raise Broken("in calm weather every webhook is punctual", promise, late, "ms")

    def _promise(self, tenant: str, timer_id: int) -> Promise:
        return self._by_key[(tenant, timer_id)]


def _time_left(due_at: int, now: float) -> int:
    """Return whole seconds, rounded up, and 0 only once expired."""
    return max(1, -(-(due_at - math.ceil(now)) // 1000)) if now < due_at else 0
