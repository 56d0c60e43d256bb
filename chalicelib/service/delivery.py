"""The use case behind every wake-up: claim the timer, send its webhook, settle the outcome."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chalicelib.domain.attempt_log import AttemptRecord, last_attempt
from chalicelib.domain.claim import Claim, Claimed, NotYet
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Lease, Status, Wakeup
from chalicelib.service.attempt import DeliveryPolicy, Signer, attempt, run
from chalicelib.service.ports import (
    ClaimStore,
    Clock,
    Meter,
    Metric,
    Sender,
    Threads,
    Wakeups,
    thread_pool,
    unmetered,
)

log = logging.getLogger(__name__)

MAX_WAIT_MS = 1_000
"""A wake-up may be this early, as queues count delays in whole seconds. Then delivery waits."""

PUT_BACK_MS = 5_000
MAX_PUT_BACK_MS = 60_000
"""The delay of a wake-up that is put back because AWS does not respond: it doubles each time.

A minute at most, so that timers fire soon after an outage has ended.
"""

_METRICS = {
    Status.FIRED: Metric.FIRED,
    Status.FAILED: Metric.FAILED,
    Status.EXPIRED: Metric.EXPIRED,
    Status.PENDING: Metric.RETRIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The clock, the randomness and the threads of a delivery. Tests replace them.

    ``sleep`` takes seconds. ``random`` returns a number in [0, 1). ``token`` returns a new token.
    """

    clock: Clock
    sleep: Callable[[float], None]
    random: Callable[[], float]
    token: Callable[[], str]
    meter: Meter = unmetered
    threads: Threads = thread_pool


class Delivery:
    """Delivers timers on their wake-ups. Any number may run at once, because the claim decides."""

    def __init__(
        self,
        store: ClaimStore,
        wakeups: Wakeups,
        sender: Sender,
        policy: DeliveryPolicy,
        effects: Effects,
    ) -> None:
        self._store = store
        self._wakeups = wakeups
        self._sender = sender
        self._policy = policy
        self._effects = effects

    def deliver(self, wakeup: Wakeup) -> AttemptRecord | None:
        """Handle ``wakeup``, and return the record of the attempt if one was made.

        When this returns, the timer is settled, or the wake-up is void, or another wake-up is
        registered. If none of these is possible, this raises ``Unavailable``, and the caller must
        deliver the same wake-up again.
        """
        if wakeup.at - self._effects.clock() > MAX_WAIT_MS:
            self._wakeups.wake_at(wakeup)
            return None
        # These may take a call to AWS. Before the claim, because a failure then leaves the timer
        # free. Before the wait, because the call then takes none of the time after the due time.
        signer = Signer(store_id=self._store.identity(), keys=self._policy.signing_keys())
        early_ms = wakeup.at - self._effects.clock()
        if early_ms > 0:
            self._effects.sleep(early_ms / 1000)
        result = self._store.claim(self._claim(wakeup))
        if isinstance(result, Claimed):
            return self._attempt(result, signer)
        if isinstance(result, NotYet):
            self._wakeups.wake_at(replace(wakeup, at=result.at, put_backs=0))
        return None

    def deliver_all(self, wakeups: Sequence[Wakeup]) -> None:
        """Deliver a batch side by side, and put back each wake-up that cannot be delivered now.

        Raises ``Unavailable`` only if some wake-up could be neither delivered nor put back.
        """
        if not wakeups:
            return
        # A thread for each: one wake-up that waits or meets a slow receiver delays no other.
        with self._effects.threads(len(wakeups)) as executor:
            failures = [
                error for error in executor.map(self._deliver_or_put_back, wakeups) if error
            ]
        if failures:
            raise failures[0]

    def _deliver_or_put_back(self, wakeup: Wakeup) -> Unavailable | None:
        """Deliver or put back one wake-up. Return the error if neither was possible."""
        try:
            self.deliver(wakeup)
        except Unavailable as error:
            log.warning("the wake-up of timer %s is put back: %s", wakeup.id, error.detail)
            # A new message, rather than a failed batch: a failed batch repeats all of its messages,
            # and each repetition brings them closer to the dead-letter queue.
            again = self._put_back(wakeup)
            try:
                self._wakeups.wake_at(again)
            except Unavailable as refused:
                return refused
        return None

    def _put_back(self, wakeup: Wakeup) -> Wakeup:
        """Return the wake-up to put back, which is longer delayed each time."""
        delay_ms = min(PUT_BACK_MS * 2 ** min(wakeup.put_backs, 10), MAX_PUT_BACK_MS)
        again_at = max(wakeup.at, math.floor(self._effects.clock()) + delay_ms)
        return replace(wakeup, at=again_at, put_backs=wakeup.put_backs + 1)

    def wake_or_deliver(self, tenant: str, timer_id: int) -> AttemptRecord | None:
        """Deliver a timer that is due, or register the wake-up of one that is not.

        Does nothing for a settled timer. Raises ``TimerNotFound`` and ``Unavailable``.
        """
        timer = self._store.get(tenant, timer_id)
        return None if timer.next_attempt_at is None else self.deliver(timer.wakeup())

    def _claim(self, wakeup: Wakeup) -> Claim:
        # Rounded down: rounded up, a claim could apply a fraction of a millisecond early.
        now = math.floor(self._effects.clock())
        lease = Lease(token=self._effects.token(), until=now + self._policy.lease_ms)
        return Claim(wakeup=wakeup, now=now, lease=lease)

    def _attempt(self, claimed: Claimed, signer: Signer) -> AttemptRecord | None:
        """Make the attempt and settle it. Return its record."""
        effects = self._effects
        steps = attempt(claimed, signer, self._policy, effects.clock, effects.random())
        settlement = run(steps, self._sender.send)
        record = last_attempt(settlement.log)
        if record is not None:
            effects.meter(Metric.LATENESS_MS, record.late_ms)
        try:
            if self._store.settle(settlement):
                effects.meter(_METRICS[settlement.status], 1)
        except Unavailable as error:
            # The outcome is lost. Nobody can claim the timer before the lease ends, so a wake-up
            # then repeats the attempt: at least once, rather than at most once.
            log.error("the outcome of timer %s is not recorded: %s", settlement.id, error.detail)
            self._wakeups.wake_at(replace(claimed.timer.wakeup(), at=claimed.lease.until))
        return record
