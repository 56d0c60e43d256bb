"""Factories of timers, claims and settlements. A test names only the values it is about."""

from __future__ import annotations

from typing import Any, Protocol

from chalicelib.domain.attempt_log import AttemptLog, AttemptRecord, extended
from chalicelib.domain.claim import Claim, Claimed, Reschedule, Settlement
from chalicelib.domain.timer import DeliveryOptions, Lease, NewTimer, Status, Timer, Wakeup
from chalicelib.service.ports import ClaimStore, TimerStore
from tests.support.clock import START

TENANT = "default"
URL = "https://receiver.example/hooks"
DELAY_MS = 30_000
DUE = START + DELAY_MS
LEASE_MS = 30_000


def new_timer(
    *,
    tenant: str = TENANT,
    url: str = URL,
    created_at: int = START,
    due_at: int = DUE,
    **options: Any,
) -> NewTimer:
    return NewTimer(
        tenant=tenant,
        url=url,
        created_at=created_at,
        due_at=due_at,
        options=DeliveryOptions(**options),
    )


class Store(TimerStore, ClaimStore, Protocol):
    """A store of timers with the methods for the API and for deliveries."""


def set_timer(
    store: TimerStore,
    *,
    tenant: str = TENANT,
    url: str = URL,
    due_at: int = DUE,
    **options: Any,
) -> Timer:
    return store.create(new_timer(tenant=tenant, url=url, due_at=due_at, **options))


def claim_of(
    wakeup: Wakeup, token: str = "token", *, now: int = DUE, lease_ms: int = LEASE_MS
) -> Claim:
    return Claim(wakeup=wakeup, now=now, lease=Lease(token=token, until=now + lease_ms))


def claimed(store: ClaimStore, timer: Timer, token: str = "token", *, now: int = DUE) -> Timer:
    """Claim ``timer``, check that the claim applied, and return the timer."""
    result = store.claim(claim_of(timer.wakeup(), token, now=now))
    assert isinstance(result, Claimed), result
    return result.timer


def settlement_of(
    timer: Timer,
    token: str = "token",
    *,
    now: int = DUE + 100,
    status: Status = Status.FIRED,
    retry_at: int | None = None,
    log: AttemptLog | None = None,
) -> Settlement:
    """Return the settlement of one more attempt of ``timer``."""
    failed = retry_at is not None or status is Status.FAILED
    made = AttemptRecord(at=now - 50, late_ms=50, took_ms=50, status=500 if failed else 204)
    return Settlement(
        tenant=timer.tenant,
        id=timer.id,
        version=timer.version,
        token=token,
        now=now,
        status=Status.PENDING if retry_at is not None else status,
        attempts=timer.attempts + 1,
        next_attempt_at=retry_at,
        log=extended(timer.log, made) if log is None else log,
    )


def change_of(timer: Timer, *, at: int = DUE + 60_000, now: int = START) -> Reschedule:
    """Return a reschedule of ``timer`` to the time ``at``."""
    return Reschedule.of(timer, now=now, at=at, due_at=at)


def settled(store: ClaimStore, timer: Timer, status: Status = Status.FIRED) -> Timer:
    """Claim and settle ``timer``, and return it as it is stored then."""
    claimed(store, timer)
    assert store.settle(settlement_of(timer, status=status))
    return store.get(timer.tenant, timer.id)
