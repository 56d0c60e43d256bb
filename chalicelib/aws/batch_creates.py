"""Batches of creates on AWS: side by side, and with ten near wake-ups a call.

The order of wake-ups and rows is that of single creates (``waking_store.py``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from typing import Protocol

from chalicelib.domain.errors import IdempotencyKeyReused, RateLimited, TimersError, Unavailable
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.timer import NewTimer, Timer, Wakeup
from chalicelib.service.ports import Clock, Meter, Metric, Threads

log = logging.getLogger(__name__)

WIDTH = 16
"""Calls of a batch that are made at once."""

NEAR_BATCH = 10
"""Near wake-ups that are registered in one call (AWS limit)."""

WRITE_FIRST_MS = 2_000
"""Up to this delay the row is written before its wake-up is registered."""


def is_written_first(wakeup: Wakeup, now: float) -> bool:
    """Return whether the row of a timer is written before its wake-up is registered."""
    return wakeup.at - math.ceil(now) <= WRITE_FIRST_MS


class SingleCreates(Protocol):
    """The part of ``WakingTimerStore`` that sets one timer."""

    def create_once(self, new: NewTimer) -> SetOnce:
        """Set the timer of an idempotent request. See ``TimerStore.create_once``."""

    def register(self, wakeup: Wakeup) -> bool:
        """Register a wake-up. Return whether that was possible."""


class Rows(Protocol):
    """The store's part in setting timers."""

    def next_id(self, tenant: str) -> int:
        """Return an id that was never given before. Raises ``RateLimited``."""

    def put(self, timer: Timer, *, armed: bool) -> None:
        """Store a new timer."""


class NearWakeups(Protocol):
    """The registration of many near wake-ups."""

    def is_near(self, wakeup: Wakeup) -> bool:
        """Tell whether ``wake_all`` can delay a wake-up until its time."""

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Register near wake-ups. Return those that were accepted. Raises ``Unavailable``."""


class BatchCreates:
    """Sets the timers of a batch, which are of one tenant."""

    def __init__(
        self,
        single: SingleCreates,
        rows: Rows,
        wakeups: NearWakeups,
        clock: Clock,
        *,
        meter: Meter,
        threads: Threads,
    ) -> None:
        self._single = single
        self._rows = rows
        self._wakeups = wakeups
        self._clock = clock
        self._meter = meter
        self._threads = threads

    def create(self, news: Sequence[NewTimer]) -> Sequence[SetOnce | TimersError]:
        """Store each timer, or refuse it, on its own; return the results in order."""
        numbered = [self._numbered(new) for new in news]
        timers = [each for each in numbered if isinstance(each, Timer)]
        with self._threads(WIDTH) as executor:
            now = self._clock()
            wakeups = [timer.wakeup() for timer in timers]
            first = [wakeup for wakeup in wakeups if not is_written_first(wakeup, now)]
            armed = {wakeup.id for wakeup in self._register(first, executor)}
            results = list(executor.map(lambda each: self._stored(each, armed), numbered))
            stored = {done.timer_id for done in results if isinstance(done, SetOnce)}
            registered = {wakeup.id for wakeup in first}
            now = self._clock()
            self._register(
                [
                    wakeup
                    for wakeup in wakeups
                    if wakeup.id in stored
                    # One that was registered may have come before its row.
                    and (wakeup.id not in registered or now >= wakeup.at)
                ],
                executor,
            )
        return results

    def _numbered(self, new: NewTimer) -> Timer | NewTimer | TimersError:
        """Give a timer its id. One with an idempotency key may have one already."""
        if new.idempotency is not None:
            return new
        try:
            return Timer.first(new, self._rows.next_id(new.tenant))
        except (RateLimited, Unavailable) as refusal:
            return refusal

    def _stored(
        self, each: Timer | NewTimer | TimersError, armed: Collection[int]
    ) -> SetOnce | TimersError:
        if isinstance(each, TimersError):
            return each
        try:
            if isinstance(each, NewTimer):
                return self._single.create_once(each)
            self._rows.put(each, armed=each.id in armed)
        except (IdempotencyKeyReused, RateLimited, Unavailable) as refusal:
            return refusal
        return SetOnce(each.id, replayed=False)

    def _register(self, wakeups: Sequence[Wakeup], executor: Executor) -> Sequence[Wakeup]:
        """Register wake-ups. Return those that are; the others are left to the sweeper."""
        near = [wakeup for wakeup in wakeups if self._wakeups.is_near(wakeup)]
        far = [wakeup for wakeup in wakeups if not self._wakeups.is_near(wakeup)]
        parts = [near[start : start + NEAR_BATCH] for start in range(0, len(near), NEAR_BATCH)]
        registered = [each for part in executor.map(self._send, parts) for each in part]
        done = executor.map(self._single.register, far)
        return registered + [wakeup for wakeup, ok in zip(far, done, strict=True) if ok]

    def _send(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        sent: Sequence[Wakeup] = ()
        try:
            sent = self._wakeups.wake_all(wakeups)
        except Unavailable as error:
            log.warning("%d timers are left to the sweeper: %s", len(wakeups), error.detail)
        if len(sent) < len(wakeups):
            self._meter(Metric.UNARMED, len(wakeups) - len(sent))
        return sent
