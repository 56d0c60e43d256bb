"""The dispatcher: it sleeps until the next timer is due, claims due timers, sends, settles.

A timer that is only pending takes no memory here.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.claim import Claim, Claimed, Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Lease, Wakeup
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from chalicelib.service.attempt import DeliveryPolicy, Signer, attempt, run_async
from chalicelib.service.ports import AsyncSender, Clock

log = logging.getLogger(__name__)

MAX_SLEEP_S = 1.0
"""The wall clock is read at least this often: laptops sleep and clocks jump."""

CLAIM_BATCH = 100

BURST_LIMIT = 128
BURST_WINDOW_S = 0.01
"""At most so many calls may be younger than this window and without a response.

In a burst, quick receivers respond within the window and their connections are used again. The
calls of hanging receivers grow older than the window, so they hold up no other call.
"""

CLEAN_BATCH = 500
WRITE_AGAIN_S = 1.0
_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherPolicy(DeliveryPolicy):
    """How the dispatcher works. Durations are in the unit their name ends in."""

    retention_days: float
    max_in_flight: int
    max_sleep_s: float = MAX_SLEEP_S
    write_again_s: float = WRITE_AGAIN_S


@dataclass(frozen=True, slots=True)
class _Round:
    """The result of one look at the store: timers to send, and when to look again (epoch ms)."""

    claimed: list[Claimed]
    look_again_at: float | None


class Dispatcher:
    """Fires what is due, in due order, each timer in a task of its own."""

    def __init__(
        self,
        writer: Writer,
        sender: AsyncSender,
        policy: DispatcherPolicy,
        clock: Clock,
        *,
        random: Callable[[], float],
        token: Callable[[], str],
    ) -> None:
        """``random`` draws from [0, 1); ``token`` draws the token of a claim."""
        self._writer = writer
        self._sender = sender
        self._policy = policy
        self._clock = clock
        self._random = random
        self._token = token
        self._in_flight: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._look = asyncio.Event()
        self._sleeping_until = math.inf
        # The latest calls, oldest first, with the time each was started.
        self._started: deque[tuple[float, asyncio.Task[None]]] = deque()
        self._unwritten = 0
        self._stopping = False

    def wake_at(self, at: int) -> None:
        """Sleep no longer than until ``at`` (epoch ms)."""
        if at < self._sleeping_until:
            self._look.set()

    async def run(self) -> None:
        """Fire timers until ``stop``. Those that are overdue at the start are fired at once."""
        await self._persist(self._writer.store.void_leases)
        while not self._stopping:
            self._look.clear()
            look_again_at = await self._fire_due()
            await self._sleep_until(look_again_at)

    async def keep_house(self) -> None:
        """Once a second, remove settled timers past their retention and keep the log short."""
        while not self._stopping:
            await asyncio.sleep(self._policy.max_sleep_s)
            try:
                await self._writer.submit(self._clean, durable=False)
                await self._writer.checkpoint()
            except Unavailable as error:
                log.warning("old timers are not removed: %s", error.detail)

    async def stop(self, grace_s: float) -> None:
        """Claim nothing more, and let calls in flight finish for up to ``grace_s`` seconds.

        A timer whose call does not finish stays outstanding and is fired after the next start.
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
            return self._clock() + self._policy.write_again_s * 1000
        room = min(room, CLAIM_BATCH, BURST_LIMIT - self._in_burst())
        if room <= 0:
            return self._clock() + BURST_WINDOW_S * 1000 / 4
        try:
            found = await self._writer.submit(lambda: self._claim_due(room), durable=False)
        except Unavailable as error:
            log.error("nothing can be claimed: %s", error.detail)
            return self._clock() + self._policy.write_again_s * 1000
        for claimed in found.claimed:
            key = (claimed.timer.tenant, claimed.timer.id)
            task = asyncio.create_task(self._fire(key, claimed))
            self._in_flight[key] = task
            self._started.append((self._loop.time(), task))
        return math.inf if found.look_again_at is None else found.look_again_at

    def _in_burst(self) -> int:
        """Return how many calls were started within the burst window and have no response yet."""
        old = self._loop.time() - BURST_WINDOW_S
        while self._started and (self._started[0][0] < old or self._started[0][1].done()):
            self._started.popleft()
        return sum(not task.done() for _, task in self._started)

    def _claim_due(self, room: int) -> _Round:
        store = self._writer.store
        now = int(self._clock())
        claimed = []
        for wakeup in self._due(store, now, room):
            lease = Lease(token=self._token(), until=now + self._policy.lease_ms)
            result = store.claim(Claim(wakeup=wakeup, now=now, lease=lease))
            if isinstance(result, Claimed):
                claimed.append(result)
        # After a full round more may be due. After any other, whatever is due is in flight here.
        return _Round(claimed, now if len(claimed) == room else store.next_due_at(now))

    def _due(self, store: SQLiteTimerStore, now: int, room: int) -> list[Wakeup]:
        """Return due wake-ups of timers that are not in flight in this process.

        A clock that was put forward may have ended the lease of a timer in flight.
        """
        limit = room
        while True:
            found = store.due(now, limit)
            free = [wakeup for wakeup in found if (wakeup.tenant, wakeup.id) not in self._in_flight]
            if len(found) < limit or len(free) >= room:
                return free[:room]
            limit += len(self._in_flight)

    async def _sleep_until(self, at: float) -> None:
        """Sleep until ``at`` (epoch ms) by the wall clock, or until ``wake_at`` ends the sleep."""
        left_s = (at - self._clock()) / 1000
        if left_s <= 0:
            await asyncio.sleep(0)
            return
        self._sleeping_until = at
        nap_s = _whole_ms(min(left_s, self._policy.max_sleep_s))
        alarm = self._loop.call_later(nap_s, self._look.set)
        await self._look.wait()
        alarm.cancel()
        self._sleeping_until = math.inf

    async def _fire(self, key: tuple[str, int], claimed: Claimed) -> None:
        try:
            settlement = await self._attempt(claimed)
            await self._persist(lambda: self._writer.store.settle(settlement))
        except Unavailable as error:
            log.error("timer %s waits for its lease to end: %s", key[1], error.detail)
            return
        finally:
            del self._in_flight[key]
            if len(self._in_flight) == self._policy.max_in_flight - 1:
                self._look.set()
        if settlement.next_attempt_at is not None:
            self.wake_at(settlement.next_attempt_at)

    async def _attempt(self, claimed: Claimed) -> Settlement:
        policy = self._policy
        signer = Signer(store_id=self._writer.store.identity(), keys=policy.signing_keys())
        steps = attempt(claimed, signer, policy, self._clock, self._random())
        return await run_async(steps, self._sender.send)

    async def _persist(self, write: Callable[[], object]) -> None:
        """Write a result in hand, again and again until it is written.

        Nothing is claimed meanwhile.
        """
        failure = await self._try(write)
        if failure is None:
            return
        if not self._unwritten:
            log.error("results in hand wait to be written: %s", failure.detail)
        self._unwritten += 1
        while failure is not None:
            await asyncio.sleep(self._policy.write_again_s)
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
    """Round up to the precision of the event loop: waking too early costs a second look."""
    return math.ceil(seconds * 1000) / 1000
