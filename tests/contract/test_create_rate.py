"""The rate of creates per tenant, on every store."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import RateLimited
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import Timer
from tests.contract.stores import Store
from tests.support.clock import ManualClock
from tests.support.factories import new_timer

PER_S = 10
EACH_MS = 1000 / PER_S


@pytest.fixture
def rate() -> Rate:
    return Rate(PER_S)


def set_now(store: Store, clock: ManualClock, tenant: str = "acme") -> Timer:
    now = int(clock.now)
    return store.create(new_timer(tenant=tenant, created_at=now, due_at=now + 60_000))


def set_as_many_as_may_be(store: Store, clock: ManualClock) -> int:
    for count in range(10 * PER_S):
        try:
            set_now(store, clock)
        except RateLimited:
            return count
    raise AssertionError("nothing limits this store")


def test_a_burst_may_set_the_timers_of_one_second_and_no_more(
    store: Store, clock: ManualClock
) -> None:
    assert set_as_many_as_may_be(store, clock) == PER_S


def test_a_refusal_says_when_to_try_again_and_uses_up_nothing(
    store: Store, clock: ManualClock
) -> None:
    set_as_many_as_may_be(store, clock)
    with pytest.raises(RateLimited, match="10 timers a second") as refusal:
        set_now(store, clock)
    assert refusal.value.retry_after == 1

    clock.advance(1_000)

    assert set_now(store, clock).id == PER_S + 1


def test_after_a_burst_timers_are_accepted_at_a_steady_rate(
    store: Store, clock: ManualClock
) -> None:
    set_as_many_as_may_be(store, clock)
    for _ in range(3):
        clock.advance(EACH_MS)
        assert set_as_many_as_may_be(store, clock) == 1


def test_a_quiet_hour_allows_no_larger_burst(store: Store, clock: ManualClock) -> None:
    set_now(store, clock)
    clock.advance(3_600_000)
    assert set_as_many_as_may_be(store, clock) == PER_S


def test_one_tenant_does_not_slow_down_another(store: Store, clock: ManualClock) -> None:
    set_as_many_as_may_be(store, clock)
    assert set_now(store, clock, "globex").id == 1


def test_a_clock_that_goes_back_locks_nobody_out(store: Store, clock: ManualClock) -> None:
    set_as_many_as_may_be(store, clock)
    clock.advance(-3_600_000)
    assert set_as_many_as_may_be(store, clock) == PER_S
