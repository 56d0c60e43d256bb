"""The use case behind every wake-up: claim the timer, send its webhook, settle what came of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chalicelib.domain.attempt_log import AttemptRecord, last_attempt
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Status, Timer, Wakeup
from chalicelib.service.attempt import Attempting, Policy, Signer, attempt
from chalicelib.service.ports import (
    Claim,
    Clock,
    Meter,
    Metric,
    Refusal,
    Refused,
    Sender,
    Settlement,
    Threads,
    TimerStore,
    Waker,
    threads,
    unmetered,
)

log = logging.getLogger(__name__)

WAIT_MS = 1_000
"""A wake-up that comes at most this early waits out the rest: queues count in whole seconds."""

PUT_BACK_MS = 5_000
"""How long a wake-up rests that could not be delivered because the store was away."""

_COUNTED = {
    Status.FIRED: Metric.FIRED,
    Status.FAILED: Metric.FAILED,
    Status.PENDING: Metric.RETRIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a delivery takes from outside, so that a test can move it. ``sleep`` is in seconds."""

    clock: Clock
    sleep: Callable[[float], None]
    random: Callable[[], float]
    token: Callable[[], str]
    meter: Meter = unmetered
    threads: Threads = threads


class Delivery:
    """Delivers timers one wake-up at a time. Safe at any concurrency: the claim decides."""

    def __init__(
        self, store: TimerStore, waker: Waker, sender: Sender, policy: Policy, world: Effects
    ) -> None:
        self._store = store
        self._waker = waker
        self._sender = sender
        self._policy = policy
        self._world = world

    def deliver(self, wakeup: Wakeup) -> AttemptRecord | None:
        """Do what ``wakeup`` asks for, and return the attempt if one was made.

        When this returns, the timer is settled, or void for this wake-up, or another wake-up is
        registered. Raises ``Unavailable`` when none of these could be brought about: then
        whoever delivered the wake-up must deliver it again.
        """
        if wakeup.at - self._world.clock() > WAIT_MS:
            self._waker.wake_at(wakeup)
            return None
        # What the call needs is fetched before the claim: a failure here leaves the timer free. And
        # before the wait, which then covers the time it takes.
        signer = Signer(store_id=self._store.identity(), keys=self._policy.signing_keys())
        early_ms = wakeup.at - self._world.clock()
        if early_ms > 0:
            self._world.sleep(early_ms / 1000)
        claimed = self._claim(wakeup)
        if isinstance(claimed, Timer):
            return self._attempt(claimed, signer)
        if claimed.refusal is Refusal.LATER and claimed.again_at is not None:
            self._waker.wake_at(replace(wakeup, at=claimed.again_at))
        return None

    def deliver_all(self, wakeups: Sequence[Wakeup]) -> None:
        """Deliver a batch side by side, each on its own; one that cannot be is put back.

        Raises ``Unavailable`` only if some could neither be delivered nor put back.
        """
        if not wakeups:
            return
        with self._world.threads(len(wakeups)) as side_by_side:
            ended = side_by_side.map(self._deliver_or_put_back, wakeups)
            lost = [error for error in ended if error]
        if lost:
            raise lost[0]

    def _deliver_or_put_back(self, wakeup: Wakeup) -> Unavailable | None:
        try:
            self.deliver(wakeup)
        except Unavailable as error:
            log.warning("timer %s is put back: %s", wakeup.id, error.detail)
            again_at = max(wakeup.at, math.floor(self._world.clock()) + PUT_BACK_MS)
            try:
                self._waker.wake_at(replace(wakeup, at=again_at))
            except Unavailable as refused:
                return refused
        return None

    def wake_or_deliver(self, tenant: str, timer_id: int) -> AttemptRecord | None:
        """Deliver a timer that is due, or register the wake-up of one that is not.

        Raises ``TimerNotFound``. A settled timer is left alone.
        """
        timer = self._store.get(tenant, timer_id)
        return None if timer.next_attempt_at is None else self.deliver(timer.wakeup())

    def _claim(self, wakeup: Wakeup) -> Timer | Refused:
        now = math.floor(self._world.clock())
        return self._store.claim(
            Claim(
                wakeup=wakeup,
                token=self._world.token(),
                now=now,
                lease_until=now + self._policy.lease_ms,
            )
        )

    def _attempt(self, timer: Timer, signer: Signer) -> AttemptRecord | None:
        steps = attempt(timer, signer, self._policy, self._world.clock, self._world.random())
        settlement = self._carry_out(steps)
        made = last_attempt(settlement.log)
        if made is not None:
            self._world.meter(Metric.LATENESS_MS, made.late_ms)
        retry = _retry(timer, settlement)
        if retry is not None:
            # Registered before the row says that there is one.
            settlement = replace(settlement, armed=self._wake(retry))
        try:
            if self._store.settle(settlement):
                self._world.meter(_COUNTED[settlement.status], 1)
        except Unavailable as error:
            # The answer is lost to us: once the lease is over, the timer is called again.
            log.error("the outcome of timer %s is not recorded: %s", timer.id, error.detail)
            self._waker.wake_at(replace(timer.wakeup(), at=timer.lease_until or 0))
        if retry is not None and self._world.clock() >= retry.at:
            # The write has outlasted the delay: the wake-up may have come before its row.
            self._wake(retry)
        return made

    def _carry_out(self, steps: Attempting) -> Settlement:
        try:
            call = next(steps)
            while True:
                call = steps.send(self._sender.send(call))
        except StopIteration as end:
            settlement: Settlement = end.value
            return settlement

    def _wake(self, retry: Wakeup) -> bool:
        try:
            self._waker.wake_at(retry)
        except Unavailable as error:
            log.warning("a retry of timer %s is left to the sweeper: %s", retry.id, error.detail)
            return False
        return True


def _retry(timer: Timer, settlement: Settlement) -> Wakeup | None:
    """Return the wake-up of the next attempt, if there is one."""
    if settlement.next_attempt_at is None:
        return None
    return replace(timer.wakeup(), version=timer.version + 1, at=settlement.next_attempt_at)
