"""Requests about many timers: which ones, and changing them side by side within a time budget.

A request works for a while and says where to go on. To repeat one is harmless: what it has done
already is not selected again, or is done again with the same result.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import (
    RateLimited,
    TimerChanged,
    TimerExpired,
    TimerInFlight,
    TimerNotFound,
    TimerSettled,
)
from chalicelib.domain.selection import EVERYTHING, Selection
from chalicelib.domain.timer import Status, Timer
from chalicelib.service.ports import Clock, Page, Threads, TimerStore, thread_pool

STEP = 100
"""Timers that are looked at before the time budget is checked again."""

BUDGET_MS = 2_000
"""How long one request may work. Its thread or Lambda serves nobody else meanwhile."""

_PASSED_OVER = (TimerChanged, TimerExpired, TimerInFlight, TimerNotFound, TimerSettled)
"""A timer that is in flight, or has changed since it was read, is left as it is."""

Change = Callable[[Timer, int], object]
"""Changes a timer, whose place among those that match (from 0) is given too.

Raises one of ``_PASSED_OVER`` if the timer must be left as it is, and ``RateLimited``.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The timers that a request is about: those of ``ids`` if given, which are selected too.

    ``before`` continues where an earlier request ended: only lower ids.
    """

    only: Selection = EVERYTHING
    ids: Sequence[int] | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How many timers matched, and how many were changed.

    If the time budget or the tenant's rate ended first, ``before`` continues there. It is None if
    all were examined.
    """

    matching: int
    changed: int
    before: int | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """What became of a few timers. The tenant's rate did not admit those that are ``refused``."""

    changed: int
    refused: Sequence[Timer]
    refusal: RateLimited | None


class ManyTimers:
    """Finds and changes many timers of one tenant."""

    def __init__(
        self,
        store: TimerStore,
        clock: Clock,
        *,
        width: int = 1,
        step: int = STEP,
        budget_ms: float = BUDGET_MS,
        threads: Threads = thread_pool,
    ) -> None:
        """``width`` timers are changed at once. See the constants for the other two."""
        self._store = store
        self._clock = clock
        self._width = width
        self._step = step
        self._budget_ms = budget_ms
        self._threads = threads

    def change(
        self, tenant: str, chosen: Chosen, statuses: Collection[Status], change: Change | None
    ) -> Done:
        """Change the chosen timers that have one of ``statuses``; only count them without a change.

        Raises ``Unavailable``, and ``RateLimited`` if the tenant's rate admits not even one.
        """
        started = self._clock()
        matching = changed = 0
        before: int | None = None
        for timers, before in self._steps(tenant, chosen, statuses):  # noqa: B007 (used behind)
            if change is not None and timers:
                step = self._carry_out(timers, matching, change)
                changed += step.changed
                if step.refusal is not None and not changed:
                    raise step.refusal
                if step.refused:
                    return Done(
                        matching=matching + len(timers) - len(step.refused),
                        changed=changed,
                        before=max(timer.id for timer in step.refused) + 1,
                    )
            matching += len(timers)
            if self._clock() - started >= self._budget_ms:
                break
        return Done(matching=matching, changed=changed, before=before)

    def _steps(
        self, tenant: str, chosen: Chosen, statuses: Collection[Status]
    ) -> Iterator[tuple[Sequence[Timer], int | None]]:
        """Yield the chosen timers, highest id first, and where to go on behind them."""
        if chosen.ids is not None:
            yield from self._steps_of_ids(tenant, chosen, chosen.ids, statuses)
            return
        before = chosen.before
        while True:
            page = self._page(tenant, before, chosen.only, statuses)
            before = page.before
            yield page.timers, before
            if before is None:
                return

    def _steps_of_ids(
        self, tenant: str, chosen: Chosen, ids: Sequence[int], statuses: Collection[Status]
    ) -> Iterator[tuple[Sequence[Timer], int | None]]:
        wanted = sorted({each for each in ids if not chosen.before or each < chosen.before})
        while wanted:
            step, wanted = wanted[-self._step :], wanted[: -self._step]
            found = self._store.find_many(tenant, step)
            timers = [each for each in found if each.status in statuses and chosen.only.match(each)]
            yield sorted(timers, key=_id_of, reverse=True), step[0] if wanted else None

    def _page(
        self, tenant: str, before: int | None, only: Selection, statuses: Collection[Status]
    ) -> Page:
        """Return the next selected timers of any of ``statuses``."""
        pages = [
            self._store.list(tenant, before=before, status=status, limit=self._step, only=only)
            for status in statuses
        ]
        # One list may go on below the end of the other: what it has further down comes later.
        end = max((page.before for page in pages if page.before is not None), default=None)
        timers = heapq.merge(*(page.timers for page in pages), key=_id_of, reverse=True)
        return Page(
            timers=[timer for timer in timers if end is None or timer.id >= end], before=end
        )

    def _carry_out(self, timers: Sequence[Timer], first: int, change: Change) -> _Step:
        """Change ``timers`` side by side; ``first`` is the place of the first of them."""

        def result(timer: Timer, place: int) -> bool | RateLimited:
            try:
                change(timer, place)
            except _PASSED_OVER:
                return False
            except RateLimited as refusal:
                return refusal
            return True

        with self._threads(self._width) as executor:
            results = list(executor.map(result, timers, range(first, first + len(timers))))
        refusals = [each for each in results if isinstance(each, RateLimited)]
        return _Step(
            changed=results.count(True),
            refused=[
                timer
                for timer, each in zip(timers, results, strict=True)
                if isinstance(each, RateLimited)
            ],
            refusal=refusals[0] if refusals else None,
        )


def _id_of(timer: Timer) -> int:
    return timer.id
