"""The use cases of many timers at once: cancel, fire and move those that are selected.

A request works within a time budget and says where to go on. To repeat one is harmless: what it has
done already is not selected again, or is done again with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import (
    TimerChanged,
    TimerExpired,
    TimerInFlight,
    TimerNotFound,
    TimerSettled,
)
from chalicelib.domain.moment import When
from chalicelib.domain.selection import Selection
from chalicelib.domain.timer import Status, Timer
from chalicelib.service.ports import Clock, Threads, TimerStore, thread_pool
from chalicelib.service.timers import Timers

STEP = 100
"""Timers that are looked at before the time budget is checked again."""

BUDGET_MS = 2_000
"""How long one request may work. Its thread or Lambda serves nobody else meanwhile."""

_PASSED_OVER = (TimerChanged, TimerExpired, TimerInFlight, TimerNotFound, TimerSettled)
"""A timer that is in flight, or has changed since it was read, is left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The timers that a request is about: those of ``ids`` if given, which are selected too.

    ``before`` continues where an earlier request ended: only lower ids.
    """

    only: Selection
    ids: Sequence[int] | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How many pending timers matched, and how many were changed.

    If the time budget ended first, ``before`` continues there. It is None if all were examined.
    """

    matching: int
    changed: int
    before: int | None = None


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
        self._store = store
        self._timers = timers
        self._clock = clock
        self._width = width
        self._budget_ms = budget_ms
        self._threads = threads

    def cancel(self, tenant: str, chosen: Chosen, *, dry_run: bool) -> Done:
        """Cancel the chosen timers that are not in flight."""
        return self._each(tenant, chosen, None if dry_run else self._cancel)

    def fire(self, tenant: str, chosen: Chosen, *, dry_run: bool) -> Done:
        """Make the next attempt of the chosen timers now."""
        return self._each(tenant, chosen, None if dry_run else self._fire)

    def move(self, tenant: str, chosen: Chosen, when: When, *, dry_run: bool) -> Done:
        """Make the chosen timers due at another time.

        Raises ``InvalidRequest`` for a time that cannot be.
        """
        when.due_at(self._clock())  # refused at once, also by a dry run

        def move(timer: Timer) -> object:
            return self._timers.move_seen(timer, when)

        return self._each(tenant, chosen, None if dry_run else move)

    def _cancel(self, timer: Timer) -> None:
        self._timers.cancel(timer.tenant, timer.id)

    def _fire(self, timer: Timer) -> object:
        return self._timers.fire_seen(timer)

    def _each(self, tenant: str, chosen: Chosen, change: Callable[[Timer], object] | None) -> Done:
        started = self._clock()
        matching = changed = 0
        next_before: int | None = None
        for timers, next_before in self._steps(tenant, chosen):  # noqa: B007 (used behind the loop)
            matching += len(timers)
            if change is not None and timers:
                changed += self._change_all(timers, change)
            if self._clock() - started >= self._budget_ms:
                break
        return Done(matching=matching, changed=changed, before=next_before)

    def _steps(self, tenant: str, chosen: Chosen) -> Iterator[tuple[Sequence[Timer], int | None]]:
        """Yield the chosen pending timers, and where to go on behind them."""
        if chosen.ids is not None:
            yield from self._steps_of_ids(tenant, chosen.ids, chosen)
            return
        before = chosen.before
        while True:
            page = self._store.list(
                tenant, before=before, status=Status.PENDING, limit=STEP, only=chosen.only
            )
            before = page.before
            yield page.timers, before
            if before is None:
                return

    def _steps_of_ids(
        self, tenant: str, ids: Sequence[int], chosen: Chosen
    ) -> Iterator[tuple[Sequence[Timer], int | None]]:
        wanted = sorted({each for each in ids if not chosen.before or each < chosen.before})
        while wanted:
            step, wanted = wanted[-STEP:], wanted[:-STEP]
            found = self._store.find_many(tenant, step)
            yield (
                [timer for timer in found if self._is_chosen(timer, chosen)],
                step[0] if wanted else None,
            )
        if not ids:
            yield (), None

    def _is_chosen(self, timer: Timer, chosen: Chosen) -> bool:
        return timer.status is Status.PENDING and chosen.only.match(timer)

    def _change_all(self, timers: Sequence[Timer], change: Callable[[Timer], object]) -> int:
        def changed(timer: Timer) -> bool:
            try:
                change(timer)
            except _PASSED_OVER:
                return False
            return True

        with self._threads(self._width) as executor:
            return sum(executor.map(changed, timers))
