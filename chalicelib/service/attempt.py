"""One attempt at a claimed timer: which calls are made, and what is written when they are over.

No I/O: a generator that yields each call and is sent what came of it, so that a thread and an
event loop carry out the very same attempt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from chalicelib.domain.attempt_log import AttemptRecord, extended
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.retry import decide
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.ports import Clock, Settlement

MIN_LEASE_FRACTION = 0.5
"""The part of a lease that must be left when a webhook is sent: longer than any one call."""

Attempting = Generator[Call, Outcome, Settlement]

SigningKeys = Callable[[], Sequence[bytes]]
"""Return the keys that sign webhooks now. Raises ``Unavailable``."""


def unsigned() -> Sequence[bytes]:
    """Return no keys: webhooks are not signed."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How timers are delivered. Durations are in the unit their name ends in."""

    lease_ms: int
    retry_delays_s: Sequence[float]
    signing_keys: SigningKeys = unsigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who calls, as a receiver sees it: the store that the webhook's id names, and the keys."""

    store_id: str
    keys: Sequence[bytes] = field(default=(), repr=False)


def attempt(
    timer: Timer, signer: Signer, policy: Policy, clock: Clock, random: float
) -> Attempting:
    """Call a claimed ``timer``, and return how it is to be settled.

    When it fails for good, its ``on_failure_url`` is called first, once and whatever comes of
    that: a failure that is recorded has been told. ``random`` as in ``decide``.

    Raises ``Unavailable`` instead of a call that its lease has no room for, because whoever
    claimed it came to a halt since: the timer may be another sender's by now, or cancelled.
    """
    _check_lease(timer, clock(), room_ms=policy.lease_ms * MIN_LEASE_FRACTION)
    outcome, made = yield from _call(timer, signer, clock)
    now = math.floor(clock())
    decision = decide(timer, outcome, now=now, delays=policy.retry_delays_s, random=random)
    log = extended(timer.log, made)
    if decision.status is Status.FAILED and timer.on_failure_url is not None:
        _check_lease(timer, clock())
        _, told = yield from _call(timer, signer, clock, notice=True)
        now = math.floor(clock())
        log = extended(log, told)
    return Settlement(
        tenant=timer.tenant,
        id=timer.id,
        token=timer.token or "",
        now=now,
        status=decision.status,
        next_attempt_at=decision.next_attempt_at,
        log=log,
    )


def _check_lease(timer: Timer, now: float, room_ms: float = 0) -> None:
    if timer.lease_until is not None and now >= timer.lease_until - room_ms:
        raise Unavailable(f"The lease on timer {timer.id} has no room for a call any more.")


def _call(
    timer: Timer, signer: Signer, clock: Clock, *, notice: bool = False
) -> Generator[Call, Outcome, tuple[Outcome, AttemptRecord]]:
    """Make one call; a URL that cannot be called any more is an outcome too."""
    started = clock()
    due = timer.next_attempt_at if timer.next_attempt_at is not None else started
    try:
        call = prepare(timer, signer.store_id, math.floor(started), signer.keys, notice=notice)
    except ValueError as error:
        outcome = Outcome(error=f"the URL cannot be called: it {error}")
    else:
        outcome = yield call
    made = AttemptRecord(
        at=math.floor(started),
        late_ms=math.floor(started - due),
        took_ms=max(0, round(clock() - started)),  # a wall clock may be put back
        status=outcome.status,
        error=outcome.error,
        notice=notice,
    )
    return outcome, made
