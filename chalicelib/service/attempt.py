"""One attempt at a claimed timer: which calls are made, and which settlement follows.

The attempt is a generator without I/O. It yields each call and is sent the outcome, so that a
thread (``run``) and an event loop (``run_async``) carry out the very same attempt.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from chalicelib.domain.attempt_log import AttemptRecord, extended
from chalicelib.domain.claim import Claimed, Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.retry import decide
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Lease, Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.ports import Clock

MIN_LEASE_FRACTION = 0.5
"""The part of a lease that must be left when a webhook is sent: longer than any one call."""

Attempt: TypeAlias = Generator[Call, Outcome, Settlement]

SigningKeys: TypeAlias = Callable[[], Sequence[bytes]]
"""Return the keys that sign webhooks now. Raises ``Unavailable``."""


def unsigned() -> Sequence[bytes]:
    """Return no keys: webhooks are not signed."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How timers are delivered. Durations are in the unit their name ends in."""

    lease_ms: int
    retry_delays_s: Sequence[float]
    signing_keys: SigningKeys = unsigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """What identifies the caller to a receiver: the store named in ``webhook-id``, and the keys."""

    store_id: str
    keys: Sequence[bytes] = field(default=(), repr=False)


def attempt(
    claimed: Claimed, signer: Signer, policy: DeliveryPolicy, clock: Clock, random: float
) -> Attempt:
    """Call a claimed timer, and return its settlement. ``random`` is in [0, 1), as for ``decide``.

    When the timer fails for good, its ``on_failure_url`` is called before the failure is
    recorded. So a recorded failure has been told, whatever came of that call.

    Raises ``Unavailable`` instead of making a call for which the lease leaves too little time.
    The process has been halted since it claimed: the timer may be another sender's by now.
    """
    timer, lease = claimed.timer, claimed.lease
    _check_lease(timer, lease, clock(), min_left_ms=policy.lease_ms * MIN_LEASE_FRACTION)
    outcome, record = yield from _call(timer, signer, clock)
    now = math.floor(clock())
    decision = decide(timer, outcome, now=now, delays=policy.retry_delays_s, random=random)
    log = extended(timer.log, record)
    if decision.status is Status.FAILED and timer.options.on_failure_url is not None:
        _check_lease(timer, lease, clock())
        _, notice = yield from _call(timer, signer, clock, notice=True)
        now = math.floor(clock())
        log = extended(log, notice)
    return Settlement(
        tenant=timer.tenant,
        id=timer.id,
        version=timer.version,
        token=lease.token,
        now=now,
        status=decision.status,
        next_attempt_at=decision.next_attempt_at,
        log=log,
    )


def run(attempt: Attempt, send: Callable[[Call], Outcome]) -> Settlement:
    """Carry out an attempt in this thread. Raises what the attempt and ``send`` raise."""
    try:
        call = next(attempt)
        while True:
            call = attempt.send(send(call))
    except StopIteration as end:
        settlement: Settlement = end.value
        return settlement


async def run_async(attempt: Attempt, send: Callable[[Call], Awaitable[Outcome]]) -> Settlement:
    """Carry out an attempt on an event loop: ``run``, with a ``send`` that is awaited."""
    try:
        call = next(attempt)
        while True:
            call = attempt.send(await send(call))
    except StopIteration as end:
        settlement: Settlement = end.value
        return settlement


def _check_lease(timer: Timer, lease: Lease, now: float, min_left_ms: float = 0) -> None:
    if now >= lease.until - min_left_ms:
        raise Unavailable(f"The lease on timer {timer.id} has no room for a call any more.")


def _call(
    timer: Timer, signer: Signer, clock: Clock, *, notice: bool = False
) -> Generator[Call, Outcome, tuple[Outcome, AttemptRecord]]:
    """Make one call. A URL that can no longer be called is an outcome too."""
    started = clock()
    try:
        call = prepare(timer, signer.store_id, math.floor(started), signer.keys, notice=notice)
    except ValueError as error:
        outcome = Outcome(error=f"the URL cannot be called: it {error}")
    else:
        outcome = yield call
    record = AttemptRecord(
        at=math.floor(started),
        late_ms=math.floor(started - timer.wakeup().at),
        took_ms=max(0, round(clock() - started)),  # a wall clock may be put back
        status=outcome.status,
        error=outcome.error,
        notice=notice,
    )
    return outcome, record
