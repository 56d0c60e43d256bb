"""The use case that finds timers whose wake-up was lost or never registered, and queues one.

A sweep only puts wake-ups on the queue. It marks each timer after sending, so that the next
sweeps do not send again while a backlog drains. A mark is void after ten minutes, so that a lost
message is sent again. A sweep that dies between sending and marking doubles a few wake-ups, which
the claim makes harmless. In the other order it would leave timers marked that nothing wakes.
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
"""How long a sweep trusts a wake-up that was sent to arrive."""

AHEAD_MS = 2 * 60 * 1000
"""How far ahead a sweep looks for unarmed timers: two intervals, so that one sweep may fail."""

THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of a sweep. ``overdue`` is how late the longest overdue timer was, in ms."""

    sent: int = 0
    overdue: int = 0
    finished: bool = True


class Sweeper:
    """Reads the due index, its shards side by side, within a time budget."""

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
        """Queue a wake-up for every missed timer, as far as the time budget allows.

        Raises ``Unavailable`` when the store or the queue could not be reached at all.
        """
        deadline = self._clock() + self._budget_ms
        cutoffs = self._cutoffs()
        with self._threads(THREADS) as executor:
            parts = list(
                executor.map(
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
        # While messages wait to be received, an overdue timer's wake-up is probably among them.
        # Then only timers that are overdue by more than a mark's life are sent again.
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
