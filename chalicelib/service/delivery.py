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
    threads,
    unmetered,
)

log = logging.getLogger(__name__)

MAX_WAIT_MS = 1_000
"""A wake-up that is this early waits out the rest: queues count delays in whole seconds."""

PUT_BACK_MS = 5_000
"""The delay of a wake-up that is put back because the store could not be reached."""

_METRICS = {
    Status.FIRED: Metric.FIRED,
    Status.FAILED: Metric.FAILED,
    Status.PENDING: Metric.RETRIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The clock, chance and threads of a delivery, which a test controls. ``sleep`` is in s."""

    clock: Clock
    sleep: Callable[[float], None]
    random: Callable[[], float]
    token: Callable[[], str]
    meter: Meter = unmetered
    threads: Threads = threads


class Delivery:
    """Delivers timers, one wake-up at a time. Safe at any concurrency: the claim decides."""

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
        registered. Raises ``Unavailable`` when none of these could be achieved: the same wake-up
        must then be delivered again.
        """
        if wakeup.at - self._effects.clock() > MAX_WAIT_MS:
            self._wakeups.wake_at(wakeup)
            return None
        # The identity and the keys are fetched before the claim, so that a failure here leaves the
        # timer free; and before the wait, so that the wait covers the time this takes.
        signer = Signer(store_id=self._store.identity(), keys=self._policy.signing_keys())
        early_ms = wakeup.at - self._effects.clock()
        if early_ms > 0:
            self._effects.sleep(early_ms / 1000)
        result = self._store.claim(self._claim(wakeup))
        if isinstance(result, Claimed):
            return self._attempt(result, signer)
        if isinstance(result, NotYet):
            self._wakeups.wake_at(replace(wakeup, at=result.at))
        return None

    def deliver_all(self, wakeups: Sequence[Wakeup]) -> None:
        """Deliver a batch side by side; put back each wake-up that cannot be delivered now.

        Raises ``Unavailable`` only if some could be neither delivered nor put back.
        """
        if not wakeups:
            return
        with self._effects.threads(len(wakeups)) as executor:
            failures = [
                error for error in executor.map(self._deliver_or_put_back, wakeups) if error
            ]
        if failures:
            raise failures[0]

    def _deliver_or_put_back(self, wakeup: Wakeup) -> Unavailable | None:
        """Return the error of a wake-up that is lost unless its message comes again."""
        try:
            self.deliver(wakeup)
        except Unavailable as error:
            log.warning("timer %s is put back: %s", wakeup.id, error.detail)
            again_at = max(wakeup.at, math.floor(self._effects.clock()) + PUT_BACK_MS)
            try:
                self._wakeups.wake_at(replace(wakeup, at=again_at))
            except Unavailable as refused:
                return refused
        return None

    def wake_or_deliver(self, tenant: str, timer_id: int) -> AttemptRecord | None:
        """Deliver a timer that is due, or register the wake-up of one that is not.

        A settled timer is left alone. Raises ``TimerNotFound``.
        """
        timer = self._store.get(tenant, timer_id)
        return None if timer.next_attempt_at is None else self.deliver(timer.wakeup())

    def _claim(self, wakeup: Wakeup) -> Claim:
        now = math.floor(self._effects.clock())
        lease = Lease(token=self._effects.token(), until=now + self._policy.lease_ms)
        return Claim(wakeup=wakeup, now=now, lease=lease)

    def _attempt(self, claimed: Claimed, signer: Signer) -> AttemptRecord | None:
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
            # The outcome is lost. The timer is called again once the lease has ended.
            log.error("the outcome of timer %s is not recorded: %s", settlement.id, error.detail)
            self._wakeups.wake_at(replace(claimed.timer.wakeup(), at=claimed.lease.until))
        return record
