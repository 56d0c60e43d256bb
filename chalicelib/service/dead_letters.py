"""The use cases of dead letters, timers that failed for good: count them and replay them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import TimerChanged, TimerInFlight, TimerNotFailed, TimerNotFound
from chalicelib.domain.timer import Status, Timer
from chalicelib.service.ports import Clock, Threads, TimerStore, threads
from chalicelib.service.timers import Timers

REPLAY_STEP = 100
"""Timers replayed between two looks at the clock."""

BUDGET_MS = 20_000
"""How long one request may count or replay: API Gateway gives it 29 s."""

DEFAULT_PER_S = 100.0
"""How fast replayed timers are called, so that receivers that have just recovered cope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTimers:
    """Which failed timers are meant: by the start of their URL, and by when they failed (epoch ms).

    ``before`` continues where an earlier request ended: only ids below it.
    """

    url_prefix: str = ""
    failed_from: float = 0
    failed_until: float = math.inf
    before: int | None = None

    def match(self, timer: Timer) -> bool:
        """Tell whether ``timer`` is meant."""
        failed_at = timer.settled_at or 0
        of_time = self.failed_from <= failed_at < self.failed_until
        return of_time and timer.url.startswith(self.url_prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How many failed timers matched, and how many of them were replayed.

    ``before`` continues where time ran out; it is None when all were looked at.
    """

    matching: int
    replayed: int
    before: int | None = None


class DeadLetters:
    """Counts and replays the failed timers of a store."""

    def __init__(
        self,
        store: TimerStore,
        timers: Timers,
        clock: Clock,
        *,
        width: int = 1,
        step: int = REPLAY_STEP,
        budget_ms: float = BUDGET_MS,
        threads: Threads = threads,
    ) -> None:
        """``width`` timers are replayed side by side, ``step`` between two looks at the clock."""
        self._store = store
        self._timers = timers
        self._clock = clock
        self._width = width
        self._step = step
        self._threads = threads
        self._budget_ms = budget_ms

    def replay(self, tenant: str, timer_id: int) -> Timer:
        """Have a failed timer called now, with its attempts counted anew.

        Raises ``TimerNotFound``, ``TimerNotFailed``, and what ``TimerStore.reschedule`` raises.
        """
        timer = self._store.get(tenant, timer_id)
        if timer.status is not Status.FAILED:
            raise TimerNotFailed(f"Timer {timer_id} is {timer.status.value}, not failed.")
        return self._replay_at(timer, self._clock())

    def replay_all(self, tenant: str, wanted: FailedTimers, per_s: float | None) -> Replayed:
        """Replay the failed timers that are ``wanted``, to be called ``per_s`` a second.

        Without ``per_s`` they are only counted.
        """
        started = self._clock()
        matching = replayed = 0
        before = wanted.before
        while True:
            page = self._store.list(tenant, before=before, status=Status.FAILED, limit=self._step)
            found = [timer for timer in page.timers if wanted.match(timer)]
            if found and per_s is not None:
                first = started + matching * 1000 / per_s
                replayed += self._replay_side_by_side(found, first, 1000 / per_s)
            matching += len(found)
            before = page.before
            if before is None or self._clock() - started >= self._budget_ms:
                return Replayed(matching=matching, replayed=replayed, before=before)

    def _replay_side_by_side(
        self, timers: Sequence[Timer], first: float, interval_ms: float
    ) -> int:
        """Replay the timers that are still failed, spaced in time; return how many those were."""
        times = [first + number * interval_ms for number in range(len(timers))]
        with self._threads(self._width) as executor:
            return sum(executor.map(self._replay_if_failed, timers, times))

    def _replay_if_failed(self, timer: Timer, at: float) -> bool:
        try:
            self._replay_at(timer, max(at, self._clock()))
        except (TimerNotFound, TimerInFlight, TimerChanged):
            return False  # another request has replayed or removed it meanwhile
        return True

    def _replay_at(self, timer: Timer, at: float) -> Timer:
        return self._timers.reschedule(timer, at=math.ceil(at), due_at=timer.due_at)
