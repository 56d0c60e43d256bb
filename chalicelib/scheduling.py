"""The use cases of the API: set a timer, tell its status, list, cancel, purge."""

from __future__ import annotations

import logging
import math

from chalicelib.errors import PurgeDisabled, Unavailable
from chalicelib.ports import Clock, Meter, Metric, Page, TimerStore, Waker, unmetered
from chalicelib.timer import NewTimer, Status, Timer

log = logging.getLogger(__name__)

PUT_FIRST_MS = 2_000
"""Below this delay a wake-up registered first could overtake the write of its row."""

PURGE_STEP = 1_000


class Scheduling:
    """Sets and watches timers, on whatever store and waker it is given."""

    def __init__(
        self,
        store: TimerStore,
        waker: Waker,
        clock: Clock,
        *,
        allow_purge: bool = True,
        purge_ms: float = math.inf,
        meter: Meter = unmetered,
    ) -> None:
        self._store = store
        self._waker = waker
        self._clock = clock
        self._allow_purge = allow_purge
        self._purge_ms = purge_ms
        self._meter = meter

    @property
    def now(self) -> float:
        """Now, as the service counts it: epoch milliseconds, UTC."""
        return self._clock()

    def set(self, tenant: str, url: str, delay_ms: int) -> Timer:
        """Store a timer that is due ``delay_ms`` after this moment, durably, and wake it then.

        A wake-up that cannot be registered does not fail the request: the timer is stored
        unarmed, and the sweep for such timers finds it.
        """
        accepted = self._clock()
        due_at = math.ceil(accepted) + delay_ms
        put_first = delay_ms <= PUT_FIRST_MS
        new = NewTimer(tenant=tenant, url=url, created_at=int(accepted), due_at=due_at)
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

    def purge(self, tenant: str) -> None:
        """Remove every timer of ``tenant``.

        Raises ``PurgeDisabled`` where that is switched off, and ``Unavailable`` when time ran
        out before all were removed: calling again goes on.
        """
        if not self._allow_purge:
            raise PurgeDisabled(
                "Removing all timers is switched off here; TIMERS_ALLOW_PURGE=on allows it."
            )
        deadline = self._clock() + self._purge_ms
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
        try:
            self._waker.wake_at(timer.wakeup())
        except Unavailable as error:
            log.warning("timer %s is left to the sweeper: %s", timer.id, error.detail)
            self._meter(Metric.UNARMED, 1)
            return False
        return True
