"""The use cases of timers: set, get, list, cancel, move and purge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chalicelib.domain.claim import Reschedule
from chalicelib.domain.content import NO_CONTENT, Content
from chalicelib.domain.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    PurgeDisabled,
    TimerExpired,
    TimersError,
    Unavailable,
)
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.keyed import KeyedTimer, SetByKey
from chalicelib.domain.moment import When
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import (
    NO_OPTIONS,
    DeliveryOptions,
    Idempotency,
    NewTimer,
    Status,
    Timer,
)
from chalicelib.service.ports import Clock, DuePage, Meter, Metric, Page, TimerStore, unmetered

PURGE_STEP = 1_000
"""Timers removed before the time budget is checked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRequest:
    """A client's request for a timer: call ``url`` at a time, with these options and content."""

    url: str
    when: When
    options: DeliveryOptions = NO_OPTIONS
    content: Content = NO_CONTENT
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest:
    """A client's request for the timer of a key.

    ``no_later_than_ms`` bounds every move of the timer, in ms after it was first set.
    ``new_if_in_flight`` asks for another timer while the one of the key is in flight.
    """

    timer: TimerRequest
    no_later_than_ms: int | None = None
    new_if_in_flight: bool = False


class Timers:
    """The timers of a store, as the API offers them."""

    def __init__(
        self,
        store: TimerStore,
        clock: Clock,
        *,
        allow_purge: bool = True,
        budget_ms: float = math.inf,
        meter: Meter = unmetered,
    ) -> None:
        """``budget_ms`` is how long one request may remove timers."""
        self._store = store
        self._clock = clock
        self._allow_purge = allow_purge
        self._budget_ms = budget_ms
        self._meter = meter

    @property
    def now(self) -> float:
        """The time of the service's clock: epoch milliseconds, UTC."""
        return self._clock()

    def set(self, tenant: str, request: TimerRequest) -> Timer:
        """Store a timer durably.

        Raises ``InvalidRequest``, ``RateLimited``, ``QuotaExceeded`` and ``Unavailable``.
        """
        timer = self._store.create(_new_timer(tenant, request, self._clock()))
        self._meter(Metric.CREATED, 1)
        return timer

    def set_once(self, tenant: str, request: TimerRequest, idempotency: Idempotency) -> SetOnce:
        """Do the same as ``set``, unless an earlier request with this key has set its timer.

        Raises ``IdempotencyKeyReused`` if that was another request, and what ``set`` raises.
        """
        try:
            new = _new_timer(tenant, request, self._clock())
        except InvalidRequest:
            # A time that lay ahead when the timer was set may be too long ago now.
            before = self._store.find_once(tenant, idempotency)
            if before is None:
                raise
            return before
        done = self._store.create_once(replace(new, idempotency=idempotency))
        if not done.replayed:
            self._meter(Metric.CREATED, 1)
        return done

    def set_many(
        self,
        tenant: str,
        requests: Sequence[TimerRequest | TimersError],
        idempotency: Idempotency | None = None,
    ) -> Sequence[SetOnce | TimersError]:
        """Set each timer, or refuse it, on its own; return the results in order.

        A request that is an error already stays one. With ``idempotency``, each timer has the key
        with its place in the batch behind it, so a repeated batch sets what is missing. Raises
        ``IdempotencyKeyReused`` if the key was used for another batch.
        """
        accepted = self._clock()
        results: list[SetOnce | TimersError | None] = []
        news: list[NewTimer] = []
        for place, request in enumerate(requests):
            try:
                if isinstance(request, TimersError):
                    raise request
                new = _new_timer(tenant, request, accepted)
            except TimersError as refusal:
                results.append(refusal)
                continue
            if idempotency is not None:
                new = replace(
                    new, idempotency=replace(idempotency, key=f"{idempotency.key}#{place}")
                )
            news.append(new)
            results.append(None)
        done = iter(self._store.create_many(news) if news else ())
        return [self._counted(next(done) if each is None else each) for each in results]

    def _counted(self, result: SetOnce | TimersError) -> SetOnce | TimersError:
        if isinstance(result, IdempotencyKeyReused):
            raise result
        if isinstance(result, SetOnce) and not result.replayed:
            self._meter(Metric.CREATED, 1)
        return result

    def set_by_key(self, tenant: str, key: str, request: KeyedRequest) -> KeyedTimer:
        """Set the timer of a key, or move it and replace what the request says.

        Raises ``TimerInFlight``, and what ``TimerStore.set_by_key`` raises.
        """
        accepted, bound_ms = self._clock(), request.no_later_than_ms
        new = replace(
            _new_timer(tenant, request.timer, accepted),
            key=key,
            no_later_than=None if bound_ms is None else math.ceil(accepted) + bound_ms,
        )
        done = self._store.set_by_key(
            SetByKey(new=new, bound_ms=bound_ms, new_if_in_flight=request.new_if_in_flight)
        )
        if done.created:
            self._meter(Metric.CREATED, 1)
        return done

    def get_by_key(self, tenant: str, key: str) -> Timer:
        """Return the timer of a key, the latest that had it. Raises ``TimerNotFound``."""
        return self._store.get_by_key(tenant, key)

    def cancel_by_key(self, tenant: str, key: str) -> None:
        """Remove the timer of a key. Raises what ``cancel`` raises."""
        self.cancel(tenant, self._store.get_by_key(tenant, key).id)

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        return self._store.get(tenant, timer_id)

    def list(
        self,
        tenant: str,
        *,
        before: int | None,
        status: Status | None,
        limit: int,
        only: Selection = EVERYTHING,
    ) -> Page:
        """Return one page of selected timers below the id ``before``, highest id first."""
        return self._store.list(tenant, before=before, status=status, limit=limit, only=only)

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        """Return one page of outstanding timers behind ``after``, the next to be called first."""
        if only.due_from >= 1:
            # No timer is called before it is due, so the list may begin there.
            start = DuePosition.behind(math.ceil(only.due_from) - 1)
            after = start if after is None else max(after, start)
        return self._store.list_due(tenant, after=after, only=only, limit=limit)

    def cancel(self, tenant: str, timer_id: int) -> None:
        """Remove a pending timer. No attempt starts afterwards.

        Raises ``TimerNotFound``, ``TimerSettled`` if it has fired or failed, and ``TimerInFlight``
        while its webhook is in flight.
        """
        self._store.cancel(tenant, timer_id, int(self._clock()))

    def move(self, tenant: str, timer_id: int, when: When) -> Timer:
        """Make a timer due at another time instead, but within the bound of a keyed timer.

        Raises ``InvalidRequest``, ``TimerNotFound``, ``TimerExpired``, and what
        ``TimerStore.reschedule`` raises.
        """
        return self.move_seen(self._store.get(tenant, timer_id), when)

    def move_seen(self, timer: Timer, when: When) -> Timer:
        """Move a timer that was just read, as ``move`` does."""
        now = self._clock()
        if timer.time_left(now) == 0:
            raise TimerExpired(f"The time of timer {timer.id} has come; it cannot be moved.")
        due_at = timer.bounded(when.due_at(now))
        return self.reschedule(timer, at=due_at, due_at=due_at)

    def fire(self, tenant: str, timer_id: int) -> Timer:
        """Make the next attempt of a pending timer now, be it the first or a retry.

        Raises ``TimerNotFound``, ``TimerSettled``, and what ``TimerStore.reschedule`` raises.
        """
        return self.fire_seen(self._store.get(tenant, timer_id))

    def fire_seen(self, timer: Timer) -> Timer:
        """Fire a timer that was just read, as ``fire`` does."""
        timer.require_pending("fired")
        now = math.ceil(self._clock())
        # A timer that is called before its time is due now, so that it is neither early nor late.
        due_at = min(timer.due_at, now)
        return self.reschedule(timer, at=now, due_at=due_at, attempts=timer.attempts)

    def reschedule(self, timer: Timer, *, at: int, due_at: int, attempts: int = 0) -> Timer:
        """Give ``timer`` another time (epoch ms): the next attempt at ``at``, ``due_at`` as shown.

        ``attempts`` of it count afterwards. Raises what ``TimerStore.reschedule`` raises.
        """
        now = math.floor(self._clock())
        return self._store.reschedule(
            Reschedule.of(timer, now=now, at=at, due_at=due_at, attempts=attempts)
        )

    def purge(self, tenant: str) -> None:
        """Remove every timer of ``tenant``.

        Raises ``PurgeDisabled`` where purges are switched off. Raises ``Unavailable`` if the time
        budget ended before all were removed. Then another call continues.
        """
        if not self._allow_purge:
            raise PurgeDisabled(
                "Removing all timers is switched off here; TIMERS_ALLOW_PURGE=on allows it."
            )
        deadline = self._clock() + self._budget_ms
        before = self._store.purge(tenant, before=None, limit=PURGE_STEP)
        while before is not None:
            if self._clock() >= deadline:
                raise Unavailable("Not all timers are removed yet; call again to go on.")
            before = self._store.purge(tenant, before=before, limit=PURGE_STEP)

    def check(self) -> None:
        """Return if the store is ready, else raise ``Unavailable``."""
        self._store.check()


def _new_timer(tenant: str, request: TimerRequest, accepted: float) -> NewTimer:
    """Return the timer of a request that was accepted at ``accepted`` (epoch ms)."""
    return NewTimer(
        tenant=tenant,
        url=request.url,
        created_at=int(accepted),
        due_at=request.when.due_at(accepted),
        options=request.options,
        content=request.content,
        labels=request.labels,
    )
