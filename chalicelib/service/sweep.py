"""The use case that makes wake-ups dispensable: find what was missed, and wake it.

It only puts wake-ups on the queue. Each is marked once it was sent, so that a backlog which is
draining is not doubled; a mark is void after a while, so that a lost message is sent again. A
sweep that dies between the two doubles a few wake-ups: the other order would strand them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.timer import Wakeup
from chalicelib.service.ports import Clock, DueIndex, SweepCutoffs, Threads, WakeQueue, threads

log = logging.getLogger(__name__)

MARK_MS = 10 * 60 * 1000
"""How long a wake-up that was sent is trusted to arrive."""

AHEAD_MS = 2 * 60 * 1000
"""How far ahead unarmed timers are looked for: two intervals, so that one sweep may fail."""

THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did. ``overdue`` is how late the longest missed timer was, in ms."""

    sent: int = 0
    overdue: int = 0
    finished: bool = True


class Sweeper:
    """Looks through the due index, all parts side by side, and never past its time."""

    def __init__(
        self,
        due_index: DueIndex,
        queue: WakeQueue,
        clock: Clock,
        *,
        grace_ms: int,
        budget_ms: float = math.inf,
        threads: Threads = threads,
    ) -> None:
        self._due_index = due_index
        self._queue = queue
        self._clock = clock
        self._grace_ms = grace_ms
        self._budget_ms = budget_ms
        self._threads = threads

    def sweep(self) -> Swept:
        """Wake what was missed; what is left when time runs out is the next sweep's.

        Raises ``Unavailable`` when the store or the queue could not be reached at all.
        """
        deadline = self._clock() + self._budget_ms
        cutoffs = self._cutoffs()
        with self._threads(THREADS) as side_by_side:
            parts = list(
                side_by_side.map(
                    lambda shard: self._sweep_shard(shard, cutoffs, deadline),
                    self._due_index.shards(),
                )
            )
        return Swept(
            sent=sum(part.sent for part in parts),
            overdue=max((part.overdue for part in parts), default=0),
            finished=all(part.finished for part in parts),
        )

    def _cutoffs(self) -> SweepCutoffs:
        now = math.floor(self._clock())
        # While messages wait to be received, what is overdue most likely waits among them: only
        # what no such backlog explains is sent again.
        patience_ms = MARK_MS if self._queue.backlog() else self._grace_ms
        return SweepCutoffs(
            overdue=now - max(patience_ms, self._grace_ms),
            upcoming=now + AHEAD_MS,
            woken=now - MARK_MS,
        )

    def _sweep_shard(self, shard: int, cutoffs: SweepCutoffs, deadline: float) -> Swept:
        sent = overdue = 0
        for page in self._due_index.find(shard, cutoffs):
            if self._clock() >= deadline:
                return Swept(sent=sent, overdue=overdue, finished=False)
            now = math.floor(self._clock())
            sent += self._send(page, cutoffs, now)
            overdue = max([overdue, *(now - wakeup.at for wakeup in page)])
        return Swept(sent=sent, overdue=overdue)

    def _send(self, page: Sequence[Wakeup], cutoffs: SweepCutoffs, now: int) -> int:
        taken = self._queue.wake_all(page)
        if len(taken) < len(page):
            log.warning("the queue took %s of %s wake-ups", len(taken), len(page))
        for wakeup in taken:
            self._due_index.mark(wakeup, cutoffs, now)
        return len(taken)
