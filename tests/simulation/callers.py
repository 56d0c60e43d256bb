"""What callers ask of the API, and how they check what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from chalicelib.domain.errors import (
    TimerChanged,
    TimerExpired,
    TimerInFlight,
    TimerNotFailed,
    TimerNotFound,
    TimersError,
    Unavailable,
)
from chalicelib.domain.timer import Timer, Wakeup
from chalicelib.service.dead_letters import DeadLetters, FailedTimers
from chalicelib.service.timers import TimerRequest, Timers
from tests.simulation.faults import LATE_MS
from tests.simulation.hub import Process
from tests.simulation.ledger import Broken, Promise
from tests.simulation.surroundings import Surroundings

TENANTS = ("acme", "globex")
DELAYS_MS = (0, 2_000, 5_000, 30_000, 120_000, 1_500_000)
CLAIMED = 0.5
"""How often callers turn to a timer that a sender has claimed, if there is one."""


class Front(Protocol):
    """A process that answers requests: the use cases of the API, put together."""

    process: Process
    scheduling: Timers
    dead_letters: DeadLetters

    def check_woken(self, wakeup: Wakeup, since: float) -> None:
        """Check that a timer just written has a wake-up to come."""


F = TypeVar("F", bound=Front)


class Callers(Generic[F]):
    """Everybody who calls the API, whichever process answers."""

    def __init__(
        self, around: Surroundings, fronts: Sequence[F], longest_ms: Sequence[int] = DELAYS_MS
    ) -> None:
        """``longest_ms``: timers are set for up to one of these."""
        self._around = around
        self._hub = around.hub
        self._chance = around.chance
        self._ledger = around.ledger
        self._fronts = fronts
        self._longest_ms = longest_ms

    def actions(self) -> Mapping[Callable[[], None], float]:
        """Return what callers do, and how often one thing as against another."""
        return {
            self._set: 40,
            self._ask: 15,
            self._list: 6,
            self._cancel: 12,
            self._move: 8,
            self._replay: 5,
            self._replay_all: 2,
            self._purge: 1,
        }

    def request(self, work: Callable[[F], None]) -> None:
        """Let a caller make a request, if there is a process that takes it."""
        front = self._chance.choice(self._fronts)
        if front.process.alive:
            front.process.start(partial(self._answer, work, front))

    def _answer(self, work: Callable[[F], None], front: F) -> None:
        try:
            work(front)
        except Unavailable as error:
            self._hub.note("answers 503", error.detail)

    def _set(self) -> None:
        chance = self._chance
        tenant = chance.choice(TENANTS)
        wish = TimerRequest(
            url="",
            delay_ms=self._delay_ms(),
            max_attempts=chance.choice((None, None, 1, 2)),
            timeout_s=chance.choice((None, None, 1, 5)),
            on_failure_url=chance.choice((None, "wanted")),
        )
        self.request(lambda front: self._set_at(front, tenant, wish))

    def _delay_ms(self) -> int:
        return int(self._chance.random() * self._chance.choice(self._longest_ms))

    def _set_at(self, front: Front, tenant: str, wish: TimerRequest) -> None:
        promise = self._ledger.asked(tenant, wish, front.process.clock())
        self._hub.note("POST /timers", tenant, promise.order)
        timer = front.scheduling.set(tenant, promise.order)
        self._ledger.acknowledged(promise, timer)
        front.check_woken(timer.wakeup(), promise.asked_at)
        self._hub.note("answers 201", promise)

    def pick(self) -> Promise | None:
        """Return a timer to ask for something, often one that is being called just now."""
        known = [each for each in self._ledger.promises if each.acknowledged_at is not None]
        claimed = [each for each in known if each.leases and not each.leases[-1].settled]
        if claimed and self._chance.random() < CLAIMED:
            return self._chance.choice(claimed)
        return self._chance.choice(known) if known else None

    def _ask(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda front: self._ask_at(front, promise))

    def _ask_at(self, front: Front, promise: Promise) -> None:
        since = self._hub.now
        try:
            timer = front.scheduling.get(promise.tenant, promise.id or 0)
        except TimerNotFound:
            timer = None
        self._ledger.told(promise, timer, front.scheduling.now, since)

    def _list(self) -> None:
        tenant, limit = self._chance.choice(TENANTS), self._chance.randint(1, 5)
        self.request(lambda front: self._list_at(front, tenant, limit))

    def _list_at(self, front: Front, tenant: str, limit: int) -> None:
        since = self._hub.now
        timers: list[Timer] = []
        before: int | None = None
        while True:
            page = front.scheduling.list(tenant, before=before, status=None, limit=limit)
            timers += page.timers
            before = page.before
            if before is None:
                break
        self._ledger.listed(tenant, timers, front.scheduling.now, since)

    def _cancel(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda front: self._cancel_at(front, promise))

    def _cancel_at(self, front: Front, promise: Promise) -> None:
        if promise.kept and self._around.disk.row(promise.tenant, promise.id or 0) is None:
            raise Broken("an acknowledged timer is there", promise)
        removal = self._ledger.removing([promise])
        self._hub.note("DELETE", promise)
        try:
            front.scheduling.cancel(promise.tenant, promise.id or 0)
        except TimerInFlight:
            removal.refused = True
            self._hub.note("answers 409", promise)
            return
        except TimerNotFound:
            # Removed before, or by this very request, whose client tried again.
            self._hub.note("answers 404", promise)
        removal.acknowledged_at = self._hub.now
        self._hub.note("answers 204", promise)

    def _move(self) -> None:
        promise, delay_ms = self.pick(), self._delay_ms()
        if promise is not None:
            self.request(lambda front: self._move_at(front, promise, delay_ms))

    def _move_at(self, front: Front, promise: Promise, delay_ms: int) -> None:
        asked = front.process.clock()
        since = self._hub.now
        self._hub.note("PATCH", promise, delay_ms)
        try:
            timer = front.scheduling.move(promise.tenant, promise.id or 0, delay_ms)
        except (TimerExpired, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        self._ledger.moved(promise, timer, delay_ms, asked, front.process.clock())
        front.check_woken(timer.wakeup(), since)
        self._hub.note("answers 200", promise, timer.due_at)

    def _replay(self) -> None:
        promise = self.pick()
        if promise is not None:
            self.request(lambda front: self._replay_at(front, promise))

    def _replay_at(self, front: Front, promise: Promise) -> None:
        since = self._hub.now
        self._hub.note("POST replay", promise)
        try:
            timer = front.dead_letters.replay(promise.tenant, promise.id or 0)
        except (TimerNotFailed, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        front.check_woken(timer.wakeup(), since)
        self._hub.note("answers 202", promise)

    def _replay_all(self) -> None:
        tenant = self._chance.choice(TENANTS)
        self.request(lambda front: self._replay_all_at(front, tenant))

    def _replay_all_at(self, front: Front, tenant: str) -> None:
        self._hub.note("POST /timers/replay", tenant)
        replayed = front.dead_letters.replay_all(tenant, FailedTimers(), per_s=100)
        self._hub.note("answers 200", replayed)

    def _refused(self, promise: Promise, refusal: TimersError) -> None:
        self._hub.note("answers", refusal.code, promise)
        if isinstance(refusal, TimerNotFound) and promise.kept:
            raise Broken("an acknowledged timer is there", promise)

    def _purge(self) -> None:
        tenant = self._chance.choice(TENANTS)
        self.request(lambda front: self._purge_at(front, tenant))

    def _purge_at(self, front: Front, tenant: str) -> None:
        removal = self._ledger.purging(tenant)
        self._hub.note("DELETE /timers", tenant)
        try:
            front.scheduling.purge(tenant)
            self._ledger.purged(tenant, removal)
        finally:
            self._hub.after(LATE_MS, partial(self._ledger.purge_over, tenant, removal))
        self._hub.note("answers 200", tenant)
