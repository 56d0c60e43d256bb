"""The use cases of many pending timers at once: cancel, fire and move those that are chosen."""

from __future__ import annotations

from chalicelib.domain.moment import When
from chalicelib.domain.timer import Status, Timer
from chalicelib.service.many_timers import BUDGET_MS, Change, Chosen, Done, ManyTimers
from chalicelib.service.ports import Clock, Threads, TimerStore, thread_pool
from chalicelib.service.timers import Timers


class Bulk:
    """Changes many pending timers of one tenant."""

    def __init__(
        self,
        store: TimerStore,
        timers: Timers,
        clock: Clock,
        *,
        width: int = 1,
        budget_ms: float = BUDGET_MS,
        threads: Threads = thread_pool,
    ) -> None:
        """``width`` timers are changed at once."""
        self._timers = timers
        self._clock = clock
        self._many = ManyTimers(store, clock, width=width, budget_ms=budget_ms, threads=threads)

    def cancel(self, tenant: str, chosen: Chosen, *, dry_run: bool) -> Done:
        """Cancel the chosen timers that are not in flight."""
        return self._each(tenant, chosen, None if dry_run else self._cancel)

    def fire(self, tenant: str, chosen: Chosen, *, dry_run: bool) -> Done:
        """Make the next attempt of the chosen timers now.

        Raises ``RateLimited`` if the tenant's rate admits not even one.
        """
        return self._each(tenant, chosen, None if dry_run else self._fire)

    def move(self, tenant: str, chosen: Chosen, when: When, *, dry_run: bool) -> Done:
        """Make the chosen timers due at another time.

        Raises ``InvalidRequest`` for a time that cannot be, and ``RateLimited`` as ``fire`` does.
        """
        when.due_at(self._clock())  # refused at once, also by a dry run

        def move(timer: Timer, _place: int) -> object:
            return self._timers.move_seen(timer, when)

        return self._each(tenant, chosen, None if dry_run else move)

    def _cancel(self, timer: Timer, _place: int) -> None:
        self._timers.cancel(timer.tenant, timer.id)

    def _fire(self, timer: Timer, _place: int) -> object:
        return self._timers.fire_seen(timer)

    def _each(self, tenant: str, chosen: Chosen, change: Change | None) -> Done:
        return self._many.change(tenant, chosen, (Status.PENDING,), change)
