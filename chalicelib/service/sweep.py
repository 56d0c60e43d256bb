"""The use case that finds timers whose wake-up was lost or never registered, and queues one.

A sweep only puts wake-ups on the queue. It marks each timer after its wake-up was sent, so that the
next sweeps do not send it again while a backlog drains. A mark is void after ten minutes, so that a
lost message is sent again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.timer import Wakeup
from chalicelib.service.ports import Clock, DueIndex, SweepCutoffs, Threads, WakeQueue, thread_pool

log = logging.getLogger(__name__)

MARK_TTL_MS = 10 * 60 * 1000
"""How long a mark holds: sweeps wait as long for a wake-up that was sent before they resend it."""

LOOK_AHEAD_MS = 2 * 60 * 1000
"""How far ahead a sweep looks for unarmed timers: two sweep intervals, so that one may fail."""

MAX_THREADS = 16
"""Shards read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of a sweep.

    ``sent`` counts wake-ups. ``overdue_ms`` is the lateness of the timer that is overdue longest.
    ``finished`` is False if the time budget ended first.
    """

    sent: int = 0
    overdue_ms: int = 0
    finished: bool = True


class Sweeper:
    """Reads the shards of the due index side by side, within a time budget."""

    def __init__(
        self,
        due_index: DueIndex,
        queue: WakeQueue,
        clock: Clock,
        *,
        grace_ms: int,
        budget_ms: float = math.inf,
        threads: Threads = thread_pool,
    ) -> None:
        """An armed timer counts as missed when it is ``grace_ms`` late."""
        self._due_index = due_index
        self._queue = queue
        self._clock = clock
        self._grace_ms = grace_ms
        self._budget_ms = budget_ms
        self._threads = threads

    def sweep(self) -> Swept:
        """Queue a wake-up for every missed timer, as far as the time budget allows.

        Raises ``Unavailable`` if a call to the store or to the queue fails. The next sweep
        continues.
        """
        deadline = self._clock() + self._budget_ms
        cutoffs = self._cutoffs()
        with self._threads(MAX_THREADS) as executor:
            parts = list(
                executor.map(
                    lambda shard: self._sweep_shard(shard, cutoffs, deadline),
                    self._due_index.shards(),
                )
            )
        return Swept(
            sent=sum(part.sent for part in parts),
            overdue_ms=max((part.overdue_ms for part in parts), default=0),
            finished=all(part.finished for part in parts),
        )

    def _cutoffs(self) -> SweepCutoffs:
        now = math.floor(self._clock())
        # While messages wait to be received, an overdue timer's wake-up is probably among them.
        # Another one would only make the backlog longer.
        patience_ms = MARK_TTL_MS if self._queue.backlog() else self._grace_ms
        return SweepCutoffs(
            overdue=now - max(patience_ms, self._grace_ms),
            upcoming=now + LOOK_AHEAD_MS,
            woken=now - MARK_TTL_MS,
        )

    def _sweep_shard(self, shard: int, cutoffs: SweepCutoffs, deadline: float) -> Swept:
        sent = overdue_ms = 0
        for page in self._due_index.find(shard, cutoffs):
            if self._clock() >= deadline:
                return Swept(sent=sent, overdue_ms=overdue_ms, finished=False)
            now = math.floor(self._clock())
            sent += self._send(page, cutoffs, now)
            overdue_ms = max([overdue_ms, *(now - wakeup.at for wakeup in page)])
        return Swept(sent=sent, overdue_ms=overdue_ms)

    def _send(self, page: Sequence[Wakeup], cutoffs: SweepCutoffs, now: int) -> int:
        taken = self._queue.wake_all(page)
        if len(taken) < len(page):
            log.warning("the queue accepted %s of %s wake-ups", len(taken), len(page))
        # Marked after sending. A sweep that ends between the two doubles wake-ups, which the claim
        # makes harmless. In the other order, marked timers could be left without a wake-up.
        for wakeup in taken:
            self._due_index.mark(wakeup, cutoffs, now)
        return len(taken)
