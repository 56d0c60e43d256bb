"""The dispatcher: sleeps until the next timer is due, claims what is due, sends, settles.

Nothing is held in memory for a timer that is only pending.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Timer, Wakeup
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from chalicelib.service.attempt import Policy, Signer, attempt
from chalicelib.service.ports import AsyncSender, Claim, Clock, Settlement

log = logging.getLogger(__name__)

MAX_SLEEP_S = 1.0
"""The wall clock is read at least this often: laptops sleep and clocks jump."""

CLAIM_BATCH = 100

BURST_LIMIT = 128
BURST_WINDOW_S = 0.01
"""At most so many calls may be younger than this and unanswered: a burst waits for the answers of
quick receivers and uses their connections again, and receivers that hang hold up nobody."""

CLEAN_BATCH = 500
WRITE_AGAIN_S = 1.0
_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherPolicy(Policy):
    """How the dispatcher works. Durations are in the unit their name ends in."""

    retention_days: float
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class _Round:
    """What one look at the store gave: timers to send, and when to look again (epoch ms)."""

    claimed: list[Timer]
    look_again_at: float | None


class Dispatcher:
    """Fires what is due, in due order, each timer in a task of its own."""

    def __init__(
        self,
        writer: Writer,
        sender: AsyncSender,
        policy: DispatcherPolicy,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._writer = writer
        self._sender = sender
        self._policy = policy
        self._clock = clock
        self._random = random
        self._in_flight: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._look = asyncio.Event()
        self._sleeping_until = math.inf
        self._started: deque[tuple[float, asyncio.Task[None]]] = deque()
        self._unwritten = 0
        self._stopping = False

    def wake_at(self, at: int) -> None:
        """Sleep no longer than until ``at`` (epoch ms)."""
        if at < self._sleeping_until:
            self._look.set()

    async def run(self) -> None:
        """Fire timers until ``stop``. What was missed while nobody ran is fired at once."""
        await self._persist(self._writer.store.void_leases)
        while not self._stopping:
            self._look.clear()
            look_again_at = await self._fire_due()
            await self._sleep_until(look_again_at)

    async def keep_house(self) -> None:
        """Once a second: remove settled timers past their retention, keep the log short."""
        while not self._stopping:
            await asyncio.sleep(MAX_SLEEP_S)
            try:
                await self._writer.submit(self._clean, durable=False)
                await self._writer.checkpoint()
            except Unavailable as error:
                log.warning("old timers are not removed: %s", error.detail)

    async def stop(self, grace_s: float) -> None:
        """Claim nothing more, and give what is in flight ``grace_s`` seconds to finish.

        What does not finish stays outstanding and is fired after the next start.
        """
        self._stopping = True
        self._look.set()
        if self._in_flight:
            await asyncio.wait(self._in_flight.values(), timeout=grace_s)
        for task in list(self._in_flight.values()):
            task.cancel()

    def _clean(self) -> int:
        settled_before = int(self._clock() - self._policy.retention_days * _DAY_MS)
        return self._writer.store.clean(settled_before, CLEAN_BATCH)

    async def _fire_due(self) -> float:
        """Claim and send what is due; return when to look again (epoch ms)."""
        room = self._policy.max_in_flight - len(self._in_flight)
        if room <= 0:
            return math.inf
        if self._unwritten:
            return self._clock() + WRITE_AGAIN_S * 1000
        room = min(room, CLAIM_BATCH, BURST_LIMIT - self._young())
        if room <= 0:
            return self._clock() + BURST_WINDOW_S * 1000 / 4
        try:
            found = await self._writer.submit(lambda: self._claim_due(room), durable=False)
        except Unavailable as error:
            log.error("nothing can be claimed: %s", error.detail)
            return self._clock() + WRITE_AGAIN_S * 1000
        for timer in found.claimed:
            key = (timer.tenant, timer.id)
            task = asyncio.create_task(self._fire(key, timer))
            self._in_flight[key] = task
            self._started.append((self._loop.time(), task))
        return math.inf if found.look_again_at is None else found.look_again_at

    def _young(self) -> int:
        """Return how many calls were started only just now and have no answer yet."""
        old = self._loop.time() - BURST_WINDOW_S
        while self._started and (self._started[0][0] < old or self._started[0][1].done()):
            self._started.popleft()
        return sum(not task.done() for _, task in self._started)

    def _claim_due(self, room: int) -> _Round:
        store = self._writer.store
        now = int(self._clock())
        claimed = []
        for wakeup in self._due(store, now, room):
            timer = store.claim(
                Claim(
                    wakeup=wakeup,
                    token=secrets.token_hex(8),
                    now=now,
                    lease_until=now + self._policy.lease_ms,
                )
            )
            if isinstance(timer, Timer):
                claimed.append(timer)
        # A full round may have left some; after another, what is due still is in flight here.
        return _Round(claimed, now if len(claimed) == room else store.next_due_at(now))

    def _due(self, store: SQLiteTimerStore, now: int, room: int) -> list[Wakeup]:
        """Return what is due and not in flight here, whatever the clock did to its lease."""
        limit = room
        while True:
            found = store.due(now, limit)
            free = [wakeup for wakeup in found if (wakeup.tenant, wakeup.id) not in self._in_flight]
            if len(found) < limit or len(free) >= room:
                return free[:room]
            limit += len(self._in_flight)

    async def _sleep_until(self, at: float) -> None:
        """Sleep until ``at`` (epoch ms) by the wall clock, or until something calls earlier."""
        left_s = (at - self._clock()) / 1000
        if left_s <= 0:
            await asyncio.sleep(0)
            return
        self._sleeping_until = at
        nap_s = _whole_ms(min(left_s, MAX_SLEEP_S))
        alarm = self._loop.call_later(nap_s, self._look.set)
        await self._look.wait()
        alarm.cancel()
        self._sleeping_until = math.inf

    async def _fire(self, key: tuple[str, int], timer: Timer) -> None:
        try:
            settlement = await self._attempt(timer)
            await self._persist(lambda: self._writer.store.settle(settlement))
        except Unavailable as error:
            log.error("timer %s waits for its lease to end: %s", timer.id, error.detail)
            return
        finally:
            del self._in_flight[key]
            if len(self._in_flight) == self._policy.max_in_flight - 1:
                self._look.set()
        if settlement.next_attempt_at is not None:
            self.wake_at(settlement.next_attempt_at)

    async def _attempt(self, timer: Timer) -> Settlement:
        policy = self._policy
        signer = Signer(store_id=self._writer.store.identity(), keys=policy.signing_keys())
        steps = attempt(timer, signer, policy, self._clock, self._random())
        try:
            call = next(steps)
            while True:
                call = steps.send(await self._sender.send(call))
        except StopIteration as end:
            settlement: Settlement = end.value
            return settlement

    async def _persist(self, write: Callable[[], object]) -> None:
        """Write what must not be forgotten, again and again until it is written.

        Nothing is claimed meanwhile.
        """
        failure = await self._try(write)
        if failure is None:
            return
        if not self._unwritten:
            log.error("results in hand wait to be written: %s", failure.detail)
        self._unwritten += 1
        while failure is not None:
            await asyncio.sleep(WRITE_AGAIN_S)
            failure = await self._try(write)
        self._unwritten -= 1
        if not self._unwritten:
            self._look.set()

    async def _try(self, write: Callable[[], object]) -> Unavailable | None:
        try:
            await self._writer.submit(write, durable=False)
        except Unavailable as failure:
            return failure
        return None


def _whole_ms(seconds: float) -> float:
    """Round up to the event loop's precision: waking too early costs a second look."""
    return math.ceil(seconds * 1000) / 1000
