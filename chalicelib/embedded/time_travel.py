"""Time travel: the test clock is moved from one due moment to the next, as far as a client asks.

The clock stands still while the calls of one moment are made, and moves on when they are settled.
So timers are called in order, none is late, and no lease ends, however long the calls take.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TypeVar

from chalicelib.domain.errors import AdvanceUnfinished, ClockMoving, Unavailable
from chalicelib.domain.moment import rfc3339
from chalicelib.embedded.clock import ClockState, DispatcherClock
from chalicelib.embedded.dispatcher import WRITE_AGAIN_S, Dispatcher
from chalicelib.embedded.journal import Journal
from chalicelib.embedded.writer import Writer
from chalicelib.service.movable_clock import Advanced

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CALLS = 10_000
"""After about so many calls an advance ends: a repeatable timer never comes to an end."""

MAX_ADVANCE_S = 300.0
"""After this time an advance ends. Receivers that hang take their timeout on every attempt."""

MAX_AHEAD_MS = 1_000 * 365 * 24 * 60 * 60 * 1000
"""The farthest that the clock may be ahead of the wall clock. RFC 3339 ends with the year 9999."""

CHECK_S = 1.0
"""How often the limits are checked while calls of one moment are made."""

LOOK_AGAIN_S = 0.01
"""How long to wait when timers are due and none may be called yet: only real time helps then."""


class TimeTravel:
    """Moves the clock of a dispatcher."""

    def __init__(
        self,
        clock: DispatcherClock,
        dispatcher: Dispatcher,
        writer: Writer,
        *,
        max_calls: int = MAX_CALLS,
        max_advance_s: float = MAX_ADVANCE_S,
    ) -> None:
        """See the constants for the limits."""
        self._clock = clock
        self._dispatcher = dispatcher
        self._writer = writer
        self._max_calls = max_calls
        self._max_advance_s = max_advance_s
        self._loop = asyncio.get_running_loop()
        self._moving = False

    async def advance(self, tenant: str, delay_ms: int | None) -> Advanced:
        """Move the clock, as ``MovableClock.advance`` says.

        If this is cancelled, because the process stops, the clock stands still until the next
        start. It goes on from there.
        """
        if self._moving:
            raise ClockMoving("Another request moves the clock; wait for its response.")
        self._moving = True
        try:
            with self._dispatcher.in_order(journal := Journal()):
                limit = await self._move(delay_ms, journal)
            now = int(self._clock())
            self._clock.state = await self._write(self._run_on, durable=True)
        finally:
            self._moving = False
        if limit is not None:
            raise AdvanceUnfinished(
                f"The clock stopped at {rfc3339(now)} after {journal.calls:,} calls: {limit}. "
                "It goes on from there."
            )
        return Advanced(now=now, results=journal.results(tenant))

    async def _move(self, delay_ms: int | None, journal: Journal) -> str | None:
        """Move the clock from moment to moment; return the limit that ended this, if one did."""
        # Rounded up, as the due time of a timer is: one that was set before, with the same delay,
        # is due by then.
        start = math.ceil(self._clock())
        end = math.inf if delay_ms is None else start + delay_ms
        ends_at_s = self._loop.time() + self._max_advance_s
        await self._stop_at(start)
        while True:
            next_at = await self._next_moment()
            # There is nothing to move to, or the end is reached.
            if next_at is not None and min(next_at, end) in (math.inf, self._clock()):
                return None
            if journal.calls >= self._max_calls:
                return f"a request makes at most {self._max_calls:,}"
            if self._loop.time() >= ends_at_s:
                return f"a request takes at most {self._max_advance_s:g} s"
            if next_at is None:
                continue
            moment = min(next_at, end)
            if moment > self._clock.wall_clock() + MAX_AHEAD_MS:
                return "it may be at most 1,000 years ahead"
            await self._stop_at(moment)

    async def _next_moment(self) -> float | None:
        """Return when a timer is due next (epoch ms), infinity if none is outstanding.

        Return None while calls of the present moment are still to be made or settled.
        """
        try:
            await asyncio.wait_for(self._dispatcher.rest(), CHECK_S)
        except asyncio.TimeoutError:
            return None
        next_at = await self._write(self._next_due)
        if next_at > self._clock():
            return next_at
        await asyncio.sleep(LOOK_AGAIN_S)
        return None

    def _next_due(self) -> float:
        """Return when a timer is due next, minus infinity if one is held. Runs in the writer."""
        store, earliest = self._writer.store, math.inf
        for tenant, at in store.next_due_by_tenant():
            if at is not None:
                self._dispatcher.wake_at(tenant, at)
                earliest = min(earliest, at)
        return -math.inf if store.any_held() else earliest

    async def _stop_at(self, at: float) -> None:
        """Let the clock stand still at ``at`` (epoch ms)."""
        state = self._clock.state.stopped(at)
        await self._write(lambda: self._writer.store.set_clock(state))
        # Only now: no timer may be called at a time that a crash would take back.
        self._clock.state = state

    def _run_on(self) -> ClockState:
        """Let the clock run on from where it stands, in the store. Runs in the writer."""
        state = self._clock.state.running(self._clock.wall_clock())
        self._writer.store.set_clock(state)
        return state

    async def _write(self, operation: Callable[[], T], *, durable: bool = False) -> T:
        """Carry out an operation of the writer; try again until it succeeds."""
        while True:
            try:
                return await self._writer.submit(operation, durable=durable)
            except Unavailable as error:
                log.error("the clock waits to be written: %s", error.detail)
                await asyncio.sleep(WRITE_AGAIN_S)
