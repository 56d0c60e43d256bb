"""The dispatcher: it sleeps until the next timer is due, claims it, makes its call and settles it.

A timer that is not due takes no memory here.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from chalicelib.domain.claim import Claimed, Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Status
from chalicelib.embedded.claims import Chosen, Claims
from chalicelib.embedded.egress import Egress, EgressLimits
from chalicelib.embedded.journal import Journal
from chalicelib.embedded.turns import Turns
from chalicelib.embedded.writer import Writer
from chalicelib.service.attempt import DeliveryPolicy, Signer, attempt, run_async
from chalicelib.service.ports import AsyncSender, Clock

log = logging.getLogger(__name__)

MAX_SLEEP_S = 1.0
"""The wall clock is read at least this often: laptops sleep and clocks jump."""

CLAIM_BATCH = 100
"""The most timers that are claimed in one write. A larger batch would delay requests of the API."""


@dataclass(frozen=True, slots=True)
class BurstPolicy:
    """At most ``limit`` calls may have started within ``window_s`` and wait for a response.

    In a burst, quick receivers respond within the window, and the next calls use their connections.
    Calls to hanging receivers become older than the window, so they delay no other call.
    """

    limit: int
    window_s: float


BURST = BurstPolicy(limit=128, window_s=0.01)

IN_ORDER = BurstPolicy(limit=1, window_s=0.1)
"""One call after another, while the test clock is moved. Only a slow receiver is not waited for."""

SWEEP_BATCH = 200
"""The most tenants that are looked at once a second, for a timer that nobody announced."""

CLEAN_BATCH = 500
"""The most settled timers that are removed in one write."""

WRITE_AGAIN_S = 1.0
"""The time before a failed write is tried again."""

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherPolicy(DeliveryPolicy):
    """The limits and intervals of the dispatcher. Durations are in the unit their name ends in."""

    retention_days: float
    egress: EgressLimits
    max_sleep_s: float = MAX_SLEEP_S
    write_again_s: float = WRITE_AGAIN_S


class Dispatcher:
    """Fires due timers, each in a task of its own. ``Claims`` says which are next."""

    def __init__(
        self,
        writer: Writer,
        sender: AsyncSender,
        policy: DispatcherPolicy,
        clock: Clock,
        *,
        random: Callable[[], float],
        token: Callable[[], str],
        ahead_ms: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``random`` draws from [0, 1); ``token`` draws the token of a claim.

        ``ahead_ms`` says how far a test clock is ahead of the wall clock.
        """
        self._writer = writer
        self._sender = sender
        self._policy = policy
        self._clock = clock
        self._ahead_ms = ahead_ms
        self._random = random
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._egress = Egress(policy.egress, self._loop.time)
        self._turns = Turns(clock, self._loop.time)
        self._claims = Claims(
            writer.store,
            self._egress,
            self._turns,
            clock=clock,
            lease_ms=policy.lease_ms,
            token=token,
        )
        # The tenant after which the next sweep goes on.
        self._swept: str | None = None
        # Set whenever there may be something to claim before the sleep ends.
        self._woken = asyncio.Event()
        self._sleeping_until = math.inf
        # The latest calls, oldest first, each with its start by the event loop's clock (s).
        self._started: deque[tuple[float, asyncio.Task[None]]] = deque()
        # How many writes have failed and are tried again.
        self._unwritten = 0
        self._stopping = False
        self._burst = BURST
        # Both are there only while the test clock is moved.
        self._journal: Journal | None = None
        self._resting: asyncio.Future[None] | None = None

    def wake_at(self, tenant: str, at: int) -> None:
        """Look for due timers of ``tenant`` at ``at`` (epoch ms) at the latest."""
        self._turns.note(tenant, at)
        if at < self._sleeping_until:
            self._woken.set()

    async def run(self) -> None:
        """Fire timers until ``stop``. Those that are overdue at the start are fired at once."""
        # A killed dispatcher leaves leases behind. This process holds the folder's lock, so every
        # sender that held one is dead.
        await self._persist(self._writer.store.void_leases)
        await self._persist(lambda: self._sweep(limit=-1))
        while not self._stopping:
            # Cleared before the round: a timer that is created during the round sets it again, and
            # the sleep after it then ends at once.
            self._woken.clear()
            next_round_at = await self._fire_due()
            self._tell_rest(next_round_at)
            await self._sleep_until(next_round_at)

    async def maintain_store(self) -> None:
        """Once a second, remove settled timers past their retention and keep the log short.

        Also look at some tenants whose next timer may have been missed.
        """
        while not self._stopping:
            await asyncio.sleep(self._policy.max_sleep_s)
            try:
                await self._writer.submit(self._clean, durable=False)
                await self._writer.submit(lambda: self._sweep(limit=SWEEP_BATCH), durable=False)
                await self._writer.checkpoint()
            except Unavailable as error:
                log.warning("old timers are not removed: %s", error.detail)

    async def stop(self, grace_s: float) -> None:
        """Claim nothing more, and let calls in flight finish for up to ``grace_s`` seconds.

        A timer whose call does not finish stays outstanding and is fired after the next start.
        """
        self._stopping = True
        self._woken.set()
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace_s)
        for task in list(self._calls):
            task.cancel()

    @contextmanager
    def in_order(self, journal: Journal) -> Iterator[None]:
        """Make one call after another and note each in ``journal``, while the context is open."""
        self._journal, self._burst = journal, IN_ORDER
        try:
            yield
        finally:
            self._journal, self._burst = None, BURST

    async def rest(self) -> None:
        """Wait until no call is in flight, and none can be made at the present time."""
        self._resting = self._loop.create_future()
        self._woken.set()
        try:
            await self._resting
        finally:
            self._resting = None

    def _tell_rest(self, next_round_at: float) -> None:
        """End the wait of ``rest`` if the round before has found nothing to do."""
        resting = self._resting
        if resting is None or resting.done():
            return
        if not self._calls and next_round_at > self._clock():
            resting.set_result(None)

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if self._resting is not None:
            self._woken.set()

    def _sweep(self, *, limit: int) -> None:
        """Note the next due timer of each tenant, ``limit`` tenants at a time (-1: all of them).

        Runs within a group of the writer, whose thread may use the store otherwise.
        """
        found = self._writer.store.next_due_by_tenant(self._swept, limit)
        self._swept = found[-1][0] if len(found) == limit else None
        for tenant, at in found:
            if at is not None:
                self.wake_at(tenant, at)

    def _clean(self) -> int:
        settled_before = int(self._clock() - self._policy.retention_days * _DAY_MS)
        return self._writer.store.clean(settled_before, CLEAN_BATCH)

    async def _fire_due(self) -> float:
        """Claim due timers and start their calls; return when the next round is (epoch ms)."""
        if self._egress.free <= 0:
            return math.inf  # the end of a call wakes the dispatcher (_fire)
        # While outcomes cannot be written, no more calls are made: a crash would repeat them all.
        if self._unwritten:
            return self._clock() + self._policy.write_again_s * 1000
        if not self._turns.advance():
            return self._turns.next_at()
        limit = min(self._egress.free, CLAIM_BATCH, self._burst.limit - self._in_burst())
        if limit <= 0:
            # A part of the window: the calls of a burst end, or grow older than it, one by one.
            return self._clock() + self._burst.window_s * 1000 / 4
        this = self._claims.new_round(limit)
        try:
            # Not durable: after a power cut the claim is gone, and so is its sender.
            await self._writer.submit(lambda: self._claims.carry_out(this), durable=False)
        except Unavailable as error:
            log.error("nothing can be claimed: %s", error.detail)
            self._claims.undo(this)
            return self._clock() + self._policy.write_again_s * 1000
        for chosen in this.chosen:
            if self._journal:
                self._journal.begun(chosen.claimed)
            task = asyncio.create_task(self._fire(chosen))
            self._calls.add(task)
            task.add_done_callback(self._call_ended)
            self._started.append((self._loop.time(), task))
        return self._turns.next_at()

    def _in_burst(self) -> int:
        """Return how many calls were started within the burst window and have no response yet."""
        window_start = self._loop.time() - self._burst.window_s
        while self._started and (self._started[0][0] < window_start or self._started[0][1].done()):
            self._started.popleft()
        return sum(not task.done() for _, task in self._started)

    async def _sleep_until(self, at: float) -> None:
        """Sleep until ``at`` (epoch ms) by the wall clock, or until ``wake_at`` ends the sleep."""
        left_s = (at - self._clock()) / 1000
        if left_s <= 0:
            await asyncio.sleep(0)  # let calls and requests of the API have their turn
            return
        self._sleeping_until = at
        sleep_s = _ceil_to_ms(min(left_s, self._policy.max_sleep_s))
        alarm = self._loop.call_later(sleep_s, self._woken.set)
        await self._woken.wait()
        alarm.cancel()
        self._sleeping_until = math.inf

    async def _fire(self, chosen: Chosen) -> None:
        timer = chosen.claimed.timer
        failed: bool | None = None
        next_at: int | None = chosen.claimed.lease.until
        try:
            settlement = await self._attempt(chosen.claimed)
            await self._persist(lambda: self._writer.store.settle(settlement))
            if self._journal:
                self._journal.settled(settlement)
            failed, next_at = _failed(settlement), settlement.next_attempt_at
        except Unavailable as error:
            # No call was made. The due index has the timer again when its lease ends.
            log.error("timer %s waits for its lease to end: %s", timer.id, error.detail)
        finally:
            was_full = self._egress.free <= 0
            # At the limit the dispatcher sleeps without an end: the first free place wakes it.
            if self._claims.end(chosen, failed=failed) or was_full:
                self._woken.set()
        if next_at is not None:
            self.wake_at(timer.tenant, next_at)

    async def _attempt(self, claimed: Claimed) -> Settlement:
        policy = self._policy
        signer = Signer(
            store_id=self._writer.store.identity(),
            keys=policy.signing_keys(),
            ahead_ms=self._ahead_ms(),
        )
        steps = attempt(claimed, signer, policy, self._clock, self._random())
        return await run_async(steps, self._sender.send)

    async def _persist(self, write: Callable[[], object]) -> None:
        """Try a write again and again until it succeeds. Nothing is claimed meanwhile."""
        failure = await self._try(write)
        if failure is None:
            return
        # One line for the first, however many follow: a full disk fails all of them.
        if not self._unwritten:
            log.error("outcomes wait to be written: %s", failure.detail)
        self._unwritten += 1
        while failure is not None:
            await asyncio.sleep(self._policy.write_again_s)
            failure = await self._try(write)
        self._unwritten -= 1
        if not self._unwritten:
            self._woken.set()

    async def _try(self, write: Callable[[], object]) -> Unavailable | None:
        try:
            await self._writer.submit(write, durable=False)
        except Unavailable as failure:
            return failure
        return None


def _failed(settlement: Settlement) -> bool:
    """Tell whether the receiver failed, not only this timer: no response, a 5xx, or 429."""
    if settlement.status is Status.FIRED:
        return False
    calls = [record for record in settlement.log if not record.notice]
    status = calls[-1].status if calls else None
    return (
        status is None
        or status == HTTPStatus.TOO_MANY_REQUESTS
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _ceil_to_ms(seconds: float) -> float:
    """Round up to the precision of the event loop: waking too early costs a second round."""
    return math.ceil(seconds * 1000) / 1000
