"""One attempt at a claimed timer: the calls that are made, and the settlement that follows.

The attempt is a generator without I/O. It yields each call and receives its outcome. So a thread
(``run``) and an event loop (``run_async``) carry out the same attempt.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from chalicelib.domain.attempt_log import AttemptRecord, extended
from chalicelib.domain.claim import Claimed, Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.retry import attempts_allowed, decide, delays_of
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Lease, Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.ports import Clock

MIN_LEASE_FRACTION = 0.5
"""The fraction of a lease that must be left when the webhook is sent.

The settings make a lease longer than two calls, so half of it is longer than one call.
"""

Attempt: TypeAlias = Generator[Call, Outcome, Settlement]

SigningKeys: TypeAlias = Callable[[], Sequence[bytes]]
"""Return the signing keys that are in use now. Raises ``Unavailable``."""


def unsigned() -> Sequence[bytes]:
    """Return no signing keys: webhooks are not signed."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How timers are delivered. The name of each duration ends in its unit."""

    lease_ms: int
    retry_delays_s: Sequence[float]
    signing_keys: SigningKeys = unsigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """The identity that a receiver sees: the store's id in ``webhook-id``, and the signing keys.

    ``ahead_ms`` is how far the clock is ahead of the wall clock, whose time the signature has:
    receivers refuse a signature of another day.
    """

    store_id: str
    keys: Sequence[bytes] = field(default=(), repr=False)
    ahead_ms: float = 0.0


def attempt(
    claimed: Claimed, signer: Signer, policy: DeliveryPolicy, clock: Clock, random: float
) -> Attempt:
    """Call the webhook of a claimed timer, and return the settlement.

    ``random`` is in [0, 1) and decides the jitter of a retry. When the timer fails for good, its
    failure notice is sent before the failure is recorded.

    Raises ``Unavailable`` instead of calling the webhook with less than half of the lease left, or
    sending the notice after its end.
    """
    timer, lease = claimed.timer, claimed.lease
    if timer.too_late(clock()):
        return (yield from _expire(claimed, signer, policy, clock))
    # Too little time is left if the process was halted after the claim, for example because a
    # laptop slept. Another sender may claim the timer before this call ends.
    _check_lease(timer, lease, clock(), min_left_ms=policy.lease_ms * MIN_LEASE_FRACTION)
    outcome, record = yield from _call(timer, signer, policy, clock)
    now = math.floor(clock())
    decision = decide(timer, outcome, now=now, delays=policy.retry_delays_s, random=random)
    log = extended(timer.log, record)
    if decision.status is Status.FAILED and timer.options.on_failure_url is not None:
        # The notice comes before the settlement. If the process ends between the two, the next
        # attempt sends the notice again. In the other order the notice could be lost. It needs no
        # margin: it may be sent twice, but no webhook is sent after it.
        _check_lease(timer, lease, clock())
        notice = yield from _notify(timer, signer, policy, clock)
        now = math.floor(clock())
        log = extended(log, notice)
    return Settlement(
        tenant=timer.tenant,
        id=timer.id,
        version=timer.version,
        token=lease.token,
        now=now,
        status=decision.status,
        attempts=0 if decision.repeat else timer.attempts + 1,
        next_attempt_at=decision.next_attempt_at,
        repeat=decision.repeat,
        log=log,
    )


def _expire(claimed: Claimed, signer: Signer, policy: DeliveryPolicy, clock: Clock) -> Attempt:
    """Settle a timer that is too late for its first call, after its failure notice."""
    timer, log = claimed.timer, claimed.timer.log
    if timer.options.on_failure_url is not None:
        _check_lease(timer, claimed.lease, clock())
        log = extended(log, (yield from _notify(timer, signer, policy, clock)))
    return Settlement(
        tenant=timer.tenant,
        id=timer.id,
        version=timer.version,
        token=claimed.lease.token,
        now=math.floor(clock()),
        status=Status.EXPIRED,
        attempts=timer.attempts,
        log=log,
    )


def run(attempt: Attempt, send: Callable[[Call], Outcome]) -> Settlement:
    """Carry out an attempt on this thread. Raises ``Unavailable`` if a call could not begin."""
    try:
        call = next(attempt)
        while True:
            call = attempt.send(send(call))
    except StopIteration as end:
        settlement: Settlement = end.value
        return settlement


async def run_async(attempt: Attempt, send: Callable[[Call], Awaitable[Outcome]]) -> Settlement:
    """Carry out an attempt on an event loop, as ``run`` does on a thread."""
    try:
        call = next(attempt)
        while True:
            call = attempt.send(await send(call))
    except StopIteration as end:
        settlement: Settlement = end.value
        return settlement


def _check_lease(timer: Timer, lease: Lease, now: float, min_left_ms: float = 0) -> None:
    """Raise ``Unavailable`` unless more than ``min_left_ms`` of the lease is left."""
    if now >= lease.until - min_left_ms:
        raise Unavailable(f"The lease on timer {timer.id} has no room for a call any more.")


def _notify(
    timer: Timer, signer: Signer, policy: DeliveryPolicy, clock: Clock
) -> Generator[Call, Outcome, AttemptRecord]:
    """Send the failure notice; return its record."""
    url = timer.options.on_failure_url
    _, notice = yield from _call(timer, signer, policy, clock, notice_url=url)
    return notice


def _call(
    timer: Timer,
    signer: Signer,
    policy: DeliveryPolicy,
    clock: Clock,
    *,
    notice_url: str | None = None,
) -> Generator[Call, Outcome, tuple[Outcome, AttemptRecord]]:
    """Make one call: the failure notice to ``notice_url``, or without one the webhook itself."""
    started = clock()
    try:
        call = prepare(
            timer,
            signer.store_id,
            math.floor(started),
            signer.keys,
            notice_url=notice_url,
            ahead_ms=signer.ahead_ms,
            attempts_max=attempts_allowed(
                delays_of(timer, policy.retry_delays_s), timer.options.max_attempts
            ),
        )
    except ValueError as error:
        # The URL was valid when the timer was set, but this version of the service refuses it. To
        # raise would leave the timer outstanding for ever.
        outcome = Outcome(error=f"the URL cannot be called: it {error}")
    else:
        outcome = yield call
    record = AttemptRecord(
        at=math.floor(started),
        late_ms=math.floor(started - timer.wakeup().at),
        took_ms=max(0, round(clock() - started)),  # a wall clock may be put back
        status=outcome.status,
        error=outcome.error,
        notice=notice_url is not None,
        retry_after=None if outcome.retry_after is None else math.ceil(outcome.retry_after),
        response=outcome.response if notice_url is None else None,
    )
    return outcome, record
