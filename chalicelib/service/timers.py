"""The use cases of the API: set a timer, tell its status, list, move, cancel, purge."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chalicelib.domain.claim import Reschedule
from chalicelib.domain.errors import PurgeDisabled, TimerExpired, Unavailable
from chalicelib.domain.timer import NO_OPTIONS, DeliveryOptions, NewTimer, Status, Timer
from chalicelib.service.ports import Clock, Meter, Metric, Page, TimerStore, unmetered

PURGE_STEP = 1_000
"""Timers removed between two looks at the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRequest:
    """What a client asks for: call ``url`` in ``delay_ms``, with these options."""

    url: str
    delay_ms: int
    options: DeliveryOptions = NO_OPTIONS


class Timers:
    """Sets and watches timers in the store it is given."""

    def __init__(
        self,
        store: TimerStore,
        clock: Clock,
        *,
        allow_purge: bool = True,
        budget_ms: float = math.inf,
        meter: Meter = unmetered,
    ) -> None:
        """``budget_ms`` is how long one request may go on removing timers."""
        self._store = store
        self._clock = clock
        self._allow_purge = allow_purge
        self._budget_ms = budget_ms
        self._meter = meter

    @property
    def now(self) -> float:
        """The time by the service's clock: epoch milliseconds, UTC."""
        return self._clock()

    def set(self, tenant: str, request: TimerRequest) -> Timer:
        """Store a timer durably; it is due ``request.delay_ms`` after this moment.

        Raises ``RateLimited`` and ``Unavailable``.
        """
        accepted = self._clock()
        timer = self._store.create(
            NewTimer(
                tenant=tenant,
                url=request.url,
                created_at=int(accepted),
                due_at=math.ceil(accepted) + request.delay_ms,
                options=request.options,
            )
        )
        self._meter(Metric.CREATED, 1)
        return timer

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        return self._store.get(tenant, timer_id)

    def list(self, tenant: str, *, before: int | None, status: Status | None, limit: int) -> Page:
        """Return one page of timers, highest id first."""
        return self._store.list(tenant, before=before, status=status, limit=limit)

    def cancel(self, tenant: str, timer_id: int) -> None:
        """Remove a timer; no attempt starts afterwards.

        Raises ``TimerNotFound``, and ``TimerInFlight`` while its webhook is in flight.
        """
        self._store.cancel(tenant, timer_id, int(self._clock()))

    def move(self, tenant: str, timer_id: int, delay_ms: int) -> Timer:
        """Make a timer that has not expired due ``delay_ms`` after this moment instead.

        Raises ``TimerNotFound``, ``TimerExpired``, and what ``TimerStore.reschedule`` raises.
        """
        timer = self._store.get(tenant, timer_id)
        now = self._clock()
        if timer.time_left(now) == 0:
            raise TimerExpired(f"The time of timer {timer_id} has come; it cannot be moved.")
        due_at = math.ceil(now) + delay_ms
        return self.reschedule(timer, at=due_at, due_at=due_at)

    def reschedule(self, timer: Timer, *, at: int, due_at: int) -> Timer:
        """Have ``timer`` called at ``at`` instead. Raises what ``TimerStore.reschedule`` raises."""
        now = math.floor(self._clock())
        return self._store.reschedule(Reschedule.of(timer, now=now, at=at, due_at=due_at))

    def purge(self, tenant: str) -> None:
        """Remove every timer of ``tenant``.

        Raises ``PurgeDisabled`` where that is switched off, and ``Unavailable`` when time ran
        out before all were removed: calling again continues.
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
        """Return if the store can be reached; raise ``Unavailable`` otherwise."""
        self._store.check()
