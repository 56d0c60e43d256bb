"""The use cases of the API: set a timer, tell its status, list, move, cancel, purge."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from chalicelib.domain.errors import (
    PurgeDisabled,
    TimerExpired,
    Unavailable,
)
from chalicelib.domain.timer import NewTimer, Status, Timer, Wakeup
from chalicelib.service.ports import (
    Clock,
    Meter,
    Metric,
    Page,
    Reschedule,
    TimerStore,
    Waker,
    unmetered,
)

log = logging.getLogger(__name__)

PUT_FIRST_MS = 2_000
"""Below this delay a wake-up registered first could overtake the write of its row."""

PURGE_STEP = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRequest:
    """What a client asks for: call ``url`` in ``delay_ms``, and how (see ``NewTimer``)."""

    url: str
    delay_ms: int
    max_attempts: int | None = None
    timeout_s: int | None = None
    on_failure_url: str | None = None


class Timers:
    """Sets and watches timers, on whatever store and waker it is given."""

    def __init__(
        self,
        store: TimerStore,
        waker: Waker,
        clock: Clock,
        *,
        allow_purge: bool = True,
        budget_ms: float = math.inf,
        meter: Meter = unmetered,
    ) -> None:
        """``budget_ms`` is how long one request may remove timers."""
        self._store = store
        self._waker = waker
        self._clock = clock
        self._allow_purge = allow_purge
        self._budget_ms = budget_ms
        self._meter = meter

    @property
    def now(self) -> float:
        """Now, as the service counts it: epoch milliseconds, UTC."""
        return self._clock()

    def set(self, tenant: str, order: TimerRequest) -> Timer:
        """Store a timer that is due its delay after this moment, durably, and wake it then.

        A wake-up that cannot be registered does not fail the request: the timer is stored
        unarmed, and the sweep for such timers finds it.
        """
        accepted = self._clock()
        due_at = math.ceil(accepted) + order.delay_ms
        new = NewTimer(
            tenant=tenant,
            url=order.url,
            created_at=int(accepted),
            due_at=due_at,
            max_attempts=order.max_attempts,
            timeout_s=order.timeout_s,
            on_failure_url=order.on_failure_url,
        )
        put_first = order.delay_ms <= PUT_FIRST_MS
        timer = self._store.create(new, self._leave if put_first else self._arm)
        if put_first or self._clock() >= due_at:
            self._arm(timer)
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

        Raises ``TimerNotFound``, and ``TimerInFlight`` while its webhook is on the wire.
        """
        timer = self._store.cancel(tenant, timer_id, int(self._clock()))
        if timer.next_attempt_at is not None:
            self._waker.forget(timer.wakeup())

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
        """Give ``timer`` another time; as for a new one, the wake-up is registered first.

        One that was registered for a write that fails is of a version that never came to be, or
        early for the one that did: neither does any harm.

        Raises what ``TimerStore.reschedule`` raises.
        """
        now = math.floor(self._clock())
        following = Wakeup(tenant=timer.tenant, id=timer.id, version=timer.version + 1, at=at)
        put_first = at - now <= PUT_FIRST_MS
        change = Reschedule(
            tenant=timer.tenant,
            id=timer.id,
            status=timer.status,
            version=timer.version,
            now=now,
            at=at,
            due_at=due_at,
            armed=not put_first and self._wake(following),
        )
        moved = self._store.reschedule(change)
        if put_first or self._clock() >= at:
            self._wake(following)
        if timer.next_attempt_at is not None:
            self._waker.forget(timer.wakeup())
        return moved

    def purge(self, tenant: str) -> None:
        """Remove every timer of ``tenant``.

        Raises ``PurgeDisabled`` where that is switched off, and ``Unavailable`` when time ran
        out before all were removed: calling again goes on.
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

    @staticmethod
    def _leave(_timer: Timer) -> bool:
        return False

    def _arm(self, timer: Timer) -> bool:
        return self._wake(timer.wakeup())

    def _wake(self, wakeup: Wakeup) -> bool:
        try:
            self._waker.wake_at(wakeup)
        except Unavailable as error:
            log.warning("timer %s is left to the sweeper: %s", wakeup.id, error.detail)
            self._meter(Metric.UNARMED, 1)
            return False
        return True
