"""The API's clients: the requests they make, and what they check in the responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from chalicelib.domain.errors import (
    TimerChanged,
    TimerExpired,
    TimerInFlight,
    TimerNotFailed,
    TimerNotFound,
    TimersError,
    TimerSettled,
    Unavailable,
)
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.moment import When
from chalicelib.domain.selection import Selection
from chalicelib.domain.timer import DeliveryOptions, Idempotency, Timer, Wakeup
from chalicelib.service.bulk import Bulk
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.many_timers import Chosen
from chalicelib.service.timers import KeyedRequest, TimerRequest, Timers
from tests.simulation.environment import Environment
from tests.simulation.fault_injector import APPLIED_LATE_MS
from tests.simulation.invariants.responses import acknowledged_timer_exists
from tests.simulation.processes import Process
from tests.simulation.promises import Promise

TENANTS = ("acme", "globex")
MAX_DELAYS_MS = (0, 2_000, 5_000, 30_000, 120_000, 1_500_000)
MANY = 12
"""Timers that one client sets at once: more than some runs allow in flight."""

KEYS = ("order:1", "order:2")
LABEL = "eu"
BATCH = 5
REPEATABLE_SHARE = 0.2
IF_NEW_SHARE = 0.3
"""How often a request asks for another timer while the one of the key is in flight."""

MAX_REPEAT_MS = 20_000.0
"""How long a client may take to repeat an idempotent request."""

CLAIMED_SHARE = 0.5
"""How often a client picks a timer that a sender holds, if there is one."""


class Api(Protocol):
    """A process that responds to requests, with the use cases of the API in it."""

    process: Process
    timers: Timers
    dead_letters: DeadLetters
    bulk: Bulk

    def check_wakeup(self, wakeup: Wakeup, since: float) -> None:
        """Check that a timer just written has a wake-up to come."""


A = TypeVar("A", bound=Api)


class Clients(Generic[A]):
    """All clients of the API, whichever of its processes responds."""

    def __init__(
        self, env: Environment, apis: Sequence[A], max_delays_ms: Sequence[int] = MAX_DELAYS_MS
    ) -> None:
        """``max_delays_ms``: a delay is drawn between 0 and one of these."""
        self._env = env
        self._time = env.time
        self._rng = env.rng
        self._oracle = env.oracle
        self._apis = apis
        self._max_delays_ms = max_delays_ms

    def actions(self) -> Mapping[Callable[[], None], float]:
        """Return the requests that clients make, each with its weight."""
        return {
            self._create: 40,
            self._get: 15,
            self._list: 6,
            self._cancel: 12,
            self._move: 8,
            self._replay: 5,
            self._replay_all: 2,
            self._purge: 1,
            self._set_once: 8,
            self._set_by_key: 15,
            self._set_batch: 3,
            self._fire: 4,
            self._cancel_label: 2,
        }

    def request(self, work: Callable[[A], None]) -> None:
        """Make a request to one of the API's processes, if that is alive."""
        api = self._rng.choice(self._apis)
        if api.process.alive:
            api.process.start(partial(self._respond, work, api))

    def _respond(self, work: Callable[[A], None], api: A) -> None:
        try:
            work(api)
        except Unavailable as error:
            self._time.note("responds 503", error.detail)

    def _create(self) -> None:
        rng = self._rng
        tenant = rng.choice(TENANTS)
        request = TimerRequest(
            url="",
            when=When(self._delay_ms()),
            options=DeliveryOptions(
                max_attempts=rng.choice((None, None, 1, 2)),
                timeout_s=rng.choice((None, None, 1, 5)),
                on_failure_url=rng.choice((None, "wanted")),
                max_lateness_ms=rng.choice((None, None, None, 1_000, 20_000)),
                repeatable=rng.random() < REPEATABLE_SHARE,
            ),
            labels=rng.choice(((), (), (LABEL,))),
        )
        self.request(lambda api: self._create_on(api, tenant, request))

    def _delay_ms(self) -> int:
        return int(self._rng.random() * self._rng.choice(self._max_delays_ms))

    def create_many(self) -> None:
        """Set many timers of one tenant for about the same time."""
        tenant, delay_ms = self._rng.choice(TENANTS), self._delay_ms()
        for _ in range(MANY):
            request = TimerRequest(url="", when=When(delay_ms))
            self.request(partial(self._create_on, tenant=tenant, request=request))

    def _create_on(self, api: Api, tenant: str, request: TimerRequest) -> None:
        promise = self._oracle.requested(tenant, request, api.process.clock())
        self._time.note("POST /timers", tenant, promise.request)
        timer = api.timers.set(tenant, promise.request)
        self._oracle.acknowledged(promise, timer)
        api.check_wakeup(timer.wakeup(), promise.requested_at)
        self._time.note("responds 201", promise)

    def _set_once(self) -> None:
        """Make one idempotent request several times, as a client does that gets no answer."""
        rng = self._rng
        tenant, delay_ms = rng.choice(TENANTS), self._delay_ms()
        request = TimerRequest(url="", when=When(delay_ms))
        promise = self._oracle.requested(tenant, request, self._time.now)
        for _ in range(rng.randint(2, 4)):
            again = partial(self._set_once_on, promise=promise)
            self._time.after(rng.random() * MAX_REPEAT_MS, partial(self.request, again))

    def _set_once_on(self, api: Api, promise: Promise) -> None:
        if promise.removals:
            return  # another timer may be set then
        once = Idempotency(key=promise.url, digest=promise.url.encode())
        self._time.note("POST /timers", promise.tenant, promise.url)
        done = api.timers.set_once(promise.tenant, promise.request, once)
        self._oracle.acknowledged_once(promise, done)
        self._time.note("responds 201", promise, done)

    def _set_by_key(self) -> None:
        rng = self._rng
        tenant, key, delay_ms = rng.choice(TENANTS), rng.choice(KEYS), self._delay_ms()
        bound_ms, if_new = rng.choice((None, None, 5_000, 60_000)), rng.random() < IF_NEW_SHARE
        self.request(
            lambda api: self._set_by_key_on(api, tenant, key, delay_ms, bound_ms, if_new=if_new)
        )

    def _set_by_key_on(
        self,
        api: Api,
        tenant: str,
        key: str,
        delay_ms: int,
        bound_ms: int | None,
        *,
        if_new: bool,
    ) -> None:
        since = self._time.now
        wanted = TimerRequest(url="", when=When(delay_ms))
        request = KeyedRequest(
            timer=self._oracle.keyed_requested(tenant, key, wanted),
            no_later_than_ms=bound_ms,
            new_if_in_flight=if_new,
        )
        self._time.note("PUT", tenant, key, delay_ms, bound_ms)
        try:
            done = api.timers.set_by_key(tenant, key, request)
        except (TimerInFlight, TimerChanged) as refusal:
            self._time.note("responds", refusal.code, key)
            return
        promise = self._oracle.acknowledged_by_key(tenant, done.timer)
        if done.created:  # a move to a later time relies on the wake-up that there is, or a sweep
            api.check_wakeup(done.timer.wakeup(), since)
        self._time.note("responds", 201 if done.created else 200, promise)

    def _set_batch(self) -> None:
        tenant, delays_ms = self._rng.choice(TENANTS), [self._delay_ms() for _ in range(BATCH)]
        self.request(lambda api: self._set_batch_on(api, tenant, delays_ms))

    def _set_batch_on(self, api: Api, tenant: str, delays_ms: Sequence[int]) -> None:
        now = api.process.clock()
        wanted = [TimerRequest(url="", when=When(delay_ms)) for delay_ms in delays_ms]
        promises = [self._oracle.requested(tenant, each, now) for each in wanted]
        self._time.note("POST /timers/batch", tenant, len(promises))
        results = api.timers.set_many(tenant, [promise.request for promise in promises])
        for promise, result in zip(promises, results, strict=True):
            if isinstance(result, SetOnce):
                self._oracle.acknowledged_once(promise, result)
        self._time.note("responds 200", tenant)

    def _fire(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda api: self._fire_on(api, promise))

    def _fire_on(self, api: Api, promise: Promise) -> None:
        since = self._time.now
        self._time.note("POST fire", promise)
        try:
            timer = api.timers.fire(promise.tenant, promise.id or 0)
        except (TimerSettled, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        api.check_wakeup(timer.wakeup(), since)
        self._time.note("responds 202", promise)

    def _cancel_label(self) -> None:
        tenant = self._rng.choice(TENANTS)
        self.request(lambda api: self._cancel_label_on(api, tenant))

    def _cancel_label_on(self, api: Api, tenant: str) -> None:
        removal = self._oracle.label_cancel_requested(tenant, LABEL)
        self._time.note("POST /timers/cancel", tenant)
        chosen = Chosen(only=Selection(label=LABEL))
        try:
            done = api.bulk.cancel(tenant, chosen, dry_run=False)
            self._time.note("responds 200", done)
        finally:
            self._time.after(APPLIED_LATE_MS, partial(self._oracle.removals_ended, removal))

    def pick(self) -> Promise | None:
        """Draw an acknowledged timer, often one that is being delivered."""
        known = [each for each in self._oracle.promises if each.acknowledged_at is not None]
        claimed = [each for each in known if each.leases and not each.leases[-1].settled]
        if claimed and self._rng.random() < CLAIMED_SHARE:
            return self._rng.choice(claimed)
        return self._rng.choice(known) if known else None

    def _get(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda api: self._get_on(api, promise))

    def _get_on(self, api: Api, promise: Promise) -> None:
        since = self._time.now
        try:
            timer = api.timers.get(promise.tenant, promise.id or 0)
        except TimerNotFound:
            timer = None
        self._oracle.read(promise, timer, api.timers.now, since)

    def _list(self) -> None:
        tenant, limit = self._rng.choice(TENANTS), self._rng.randint(1, 5)
        self.request(lambda api: self._list_on(api, tenant, limit))

    def _list_on(self, api: Api, tenant: str, limit: int) -> None:
        since = self._time.now
        timers: list[Timer] = []
        before: int | None = None
        while True:
            page = api.timers.list(tenant, before=before, status=None, limit=limit)
            timers += page.timers
            before = page.before
            if before is None:
                break
        self._oracle.listed(tenant, timers, api.timers.now, since)

    def _cancel(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda api: self._cancel_on(api, promise))

    def _cancel_on(self, api: Api, promise: Promise) -> None:
        if promise.must_exist:
            row = self._env.stored.row(promise.tenant, promise.id or 0)
            acknowledged_timer_exists(promise, row)
        removal = self._oracle.removal_requested([promise])
        self._time.note("DELETE", promise)
        try:
            api.timers.cancel(promise.tenant, promise.id or 0)
        except (TimerInFlight, TimerSettled):
            removal.refused = True
            self._time.note("responds 409", promise)
            return
        except TimerNotFound:
            # It was removed before, or by this request: the client library has repeated it.
            self._time.note("responds 404", promise)
            # If a purge removed it, a sender that had claimed it before may still call.
            removal.purge = any(each.purge for each in promise.removals)
        removal.acknowledged_at = self._time.now
        self._time.note("responds 204", promise)

    def _move(self) -> None:
        promise, delay_ms = self.pick(), self._delay_ms()
        if promise is not None:
            self.request(lambda api: self._move_on(api, promise, delay_ms))

    def _move_on(self, api: Api, promise: Promise, delay_ms: int) -> None:
        asked_at = api.process.clock()
        since = self._time.now
        self._time.note("PATCH", promise, delay_ms)
        try:
            timer = api.timers.move(promise.tenant, promise.id or 0, When(delay_ms))
        except (TimerExpired, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        self._oracle.moved(promise, timer, delay_ms, asked_at, api.process.clock())
        api.check_wakeup(timer.wakeup(), since)
        self._time.note("responds 200", promise, timer.due_at)

    def _replay(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda api: self._replay_on(api, promise))

    def _replay_on(self, api: Api, promise: Promise) -> None:
        since = self._time.now
        self._time.note("POST replay", promise)
        try:
            timer = api.dead_letters.replay(promise.tenant, promise.id or 0)
        except (TimerNotFailed, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        api.check_wakeup(timer.wakeup(), since)
        self._time.note("responds 202", promise)

    def _replay_all(self) -> None:
        tenant = self._rng.choice(TENANTS)
        self.request(lambda api: self._replay_all_on(api, tenant))

    def _replay_all_on(self, api: Api, tenant: str) -> None:
        self._time.note("POST /timers/replay", tenant)
        replayed = api.dead_letters.replay_all(tenant, Chosen(), per_s=100)
        self._time.note("responds 200", replayed)

    def _refused(self, promise: Promise, refusal: TimersError) -> None:
        self._time.note("responds", refusal.code, promise)
        if isinstance(refusal, TimerNotFound):
            acknowledged_timer_exists(promise, None)

    def _purge(self) -> None:
        tenant = self._rng.choice(TENANTS)
        self.request(lambda api: self._purge_on(api, tenant))

    def _purge_on(self, api: Api, tenant: str) -> None:
        removal = self._oracle.purge_requested(tenant)
        self._time.note("DELETE /timers", tenant)
        try:
            api.timers.purge(tenant)
            self._oracle.purge_acknowledged(tenant, removal)
        finally:
            self._time.after(APPLIED_LATE_MS, partial(self._oracle.removals_ended, removal))
        self._time.note("responds 200", tenant)
