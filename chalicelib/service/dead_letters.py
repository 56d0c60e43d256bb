"""The use cases of dead letters, which are timers that failed for good: count and replay them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import TimerChanged, TimerInFlight, TimerNotFailed, TimerNotFound
from chalicelib.domain.selection import EVERYTHING, Selection
from chalicelib.domain.timer import UNDELIVERED, Timer
from chalicelib.service.ports import Clock, Page, Threads, TimerStore, thread_pool
from chalicelib.service.timers import Timers

REPLAY_STEP = 100
"""Timers that are counted or replayed before the time budget is checked again."""

REPLAY_BUDGET_MS = 2_000
"""How long one request may count or replay; the next one goes on from there.

Short, because the thread or the Lambda that serves it serves nobody else meanwhile.
"""

DEFAULT_PER_S = 100.0
"""Replayed timers called per second. More could overload receivers that have just recovered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTimers:
    """A selection of failed and expired timers, of ``ids`` if given.

    ``before`` continues where an earlier request ended: only timers with a lower id are selected.
    """

    only: Selection = EVERYTHING
    ids: Sequence[int] | None = None
    before: int | None = None

    def match(self, timer: Timer) -> bool:
        """Return whether ``timer``, which is failed, is selected. ``before`` is not compared."""
        return (self.ids is None or timer.id in self.ids) and self.only.match(timer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How many failed timers matched, and how many of them were replayed.

    If the time budget ended first, ``before`` continues there. It is None if all were examined.
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
        budget_ms: float = REPLAY_BUDGET_MS,
        threads: Threads = thread_pool,
    ) -> None:
        """Set the pace: ``width`` timers at once, the time budget checked after every ``step``."""
        self._store = store
        self._timers = timers
        self._clock = clock
        self._width = width
        self._step = step
        self._threads = threads
        self._budget_ms = budget_ms

    def replay(self, tenant: str, timer_id: int) -> Timer:
        """Make a failed timer due for an attempt now, with its attempts counted anew.

        Raises ``TimerNotFound``, ``TimerNotFailed``, and what ``TimerStore.reschedule`` raises.
        """
        timer = self._store.get(tenant, timer_id)
        if timer.status not in UNDELIVERED:
            raise TimerNotFailed(f"Timer {timer_id} is {timer.status.value}, not failed.")
        return self._replay_at(timer, self._clock())

    def replay_all(self, tenant: str, wanted: FailedTimers, per_s: float | None) -> Replayed:
        """Replay the selected timers, so that ``per_s`` of them are called a second.

        Without ``per_s`` they are only counted. Raises ``Unavailable``.
        """
        started = self._clock()
        matching = replayed = 0
        before = wanted.before
        while True:
            page = self._undelivered(tenant, before, wanted.only)
            found = [timer for timer in page.timers if wanted.match(timer)]
            if found and per_s is not None:
                # Times continue those of the last page, or each page would be called in one burst.
                first = started + matching * 1000 / per_s
                replayed += self._replay_side_by_side(found, first, 1000 / per_s)
            matching += len(found)
            before = page.before
            if before is None or self._clock() - started >= self._budget_ms:
                return Replayed(matching=matching, replayed=replayed, before=before)

    def _undelivered(self, tenant: str, before: int | None, only: Selection) -> Page:
        """Return the next failed and expired timers, highest id first."""
        pages = [
            self._store.list(tenant, before=before, status=status, limit=self._step, only=only)
            for status in UNDELIVERED
        ]
        # One list may go on below the end of the other: what it has further down comes later.
        end = max((page.before for page in pages if page.before is not None), default=None)
        timers = heapq.merge(*(page.timers for page in pages), key=_id_of, reverse=True)
        return Page(
            timers=[timer for timer in timers if end is None or timer.id >= end], before=end
        )

    def _replay_side_by_side(
        self, timers: Sequence[Timer], first: float, interval_ms: float
    ) -> int:
        """Replay the timers that are still failed, ``interval_ms`` apart. Return their number."""
        times = [first + number * interval_ms for number in range(len(timers))]
        with self._threads(self._width) as executor:
            return sum(executor.map(self._replay_if_failed, timers, times))

    def _replay_if_failed(self, timer: Timer, at: float) -> bool:
        try:
            self._replay_at(timer, max(at, self._clock()))
        except (TimerNotFound, TimerInFlight, TimerChanged):
            return False  # another request has replayed or removed it in the meantime
        return True

    def _replay_at(self, timer: Timer, at: float) -> Timer:
        # ``due_at`` stays: it says when the client wanted the call, not when it is made.
        return self._timers.reschedule(timer, at=math.ceil(at), due_at=timer.due_at)


def _id_of(timer: Timer) -> int:
    return timer.id
