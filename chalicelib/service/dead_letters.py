"""The use cases of dead letters, which are timers that failed for good: count and replay them."""

from __future__ import annotations

import math

from chalicelib.domain.errors import TimerNotFailed
from chalicelib.domain.timer import UNDELIVERED, Timer
from chalicelib.service.many_timers import BUDGET_MS, STEP, Chosen, Done, ManyTimers
from chalicelib.service.ports import Clock, Threads, TimerStore, thread_pool
from chalicelib.service.timers import Timers

DEFAULT_PER_S = 100.0
"""Replayed timers called per second. More could overload receivers that have just recovered."""


class DeadLetters:
    """Counts and replays the failed and expired timers of a store."""

    def __init__(
        self,
        store: TimerStore,
        timers: Timers,
        clock: Clock,
        *,
        width: int = 1,
        step: int = STEP,
        budget_ms: float = BUDGET_MS,
        threads: Threads = thread_pool,
    ) -> None:
        """Set the pace: ``width`` timers at once, the time budget checked after every ``step``."""
        self._store = store
        self._timers = timers
        self._clock = clock
        self._many = ManyTimers(
            store, clock, width=width, step=step, budget_ms=budget_ms, threads=threads
        )

    def replay(self, tenant: str, timer_id: int) -> Timer:
        """Make a failed timer due for an attempt now, with its attempts counted anew.

        Raises ``TimerNotFound``, ``TimerNotFailed``, and what ``TimerStore.reschedule`` raises.
        """
        timer = self._store.get(tenant, timer_id)
        if timer.status not in UNDELIVERED:
            raise TimerNotFailed(f"Timer {timer_id} is {timer.status.value}, not failed.")
        return self._replay_at(timer, self._clock())

    def replay_all(self, tenant: str, chosen: Chosen, per_s: float | None) -> Done:
        """Replay the chosen timers, so that ``per_s`` of them are called a second.

        Without ``per_s`` they are only counted. Raises ``Unavailable``, and ``RateLimited`` if the
        tenant's rate admits not even one.
        """
        if per_s is None:
            return self._many.change(tenant, chosen, UNDELIVERED, None)
        started, interval_ms = self._clock(), 1000 / per_s

        def replay(timer: Timer, place: int) -> Timer:
            at = started + place * interval_ms
            return self._replay_at(timer, max(at, self._clock()))

        return self._many.change(tenant, chosen, UNDELIVERED, replay)

    def _replay_at(self, timer: Timer, at: float) -> Timer:
        # ``due_at`` stays: it says when the client wanted the call, not when it is made.
        return self._timers.reschedule(timer, at=math.ceil(at), due_at=timer.due_at)
