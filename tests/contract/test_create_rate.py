"""The rate of creates per tenant, on every store."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from chalicelib.domain.errors import RateLimited
from chalicelib.domain.rate import MAX_CLOCK_SKEW_MS, Rate
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


def set_at(store: Store, clock: ManualClock, times: Sequence[float]) -> int:
    """Try to set one timer at each of the clock readings; return how many are accepted."""
    accepted = 0
    for clock.now in times:
        try:
            set_now(store, clock)
        except RateLimited:
            continue
        accepted += 1
    return accepted


def skewed_times(skew_ms: float, seed: int) -> Sequence[float]:
    """Return the readings of four clocks, each off by at most ``skew_ms``, in random order."""
    choose = random.Random(seed)
    offsets = [choose.uniform(-skew_ms, skew_ms) for _ in range(4)]
    times, now = [], ManualClock().now
    for _ in range(150):
        now += choose.expovariate(1 / 20)
        times.append(float(int(now + choose.choice(offsets))))
    return times


@pytest.mark.parametrize("skew_ms", [3, 20, 700, 5_000, 29_000])
@pytest.mark.parametrize("seed", range(3))
def test_clocks_that_differ_share_one_rate(
    store: Store, clock: ManualClock, skew_ms: float, seed: int
) -> None:
    times = skewed_times(skew_ms, seed)
    accepted = set_at(store, clock, times)
    assert PER_S <= accepted <= PER_S + (max(times) - min(times)) / EACH_MS + 1


@pytest.mark.parametrize("step_ms", [1, 20, 1_500, 30_000, MAX_CLOCK_SKEW_MS])
def test_a_clock_that_is_slightly_behind_admits_no_more(
    store: Store, clock: ManualClock, step_ms: float
) -> None:
    set_as_many_as_may_be(store, clock)
    clock.advance(-step_ms)
    assert set_as_many_as_may_be(store, clock) == 0
    clock.advance(step_ms)
    assert set_as_many_as_may_be(store, clock) == 0


@pytest.mark.parametrize("step_ms", [1, 20, 1_500, 30_000])
def test_a_clock_that_is_slightly_behind_admits_the_rest_of_the_burst(
    store: Store, clock: ManualClock, step_ms: float
) -> None:
    set_now(store, clock)
    clock.advance(-step_ms)
    assert set_as_many_as_may_be(store, clock) == PER_S - 1


def test_a_refusal_by_a_clock_that_is_behind_waits_for_it(store: Store, clock: ManualClock) -> None:
    set_as_many_as_may_be(store, clock)
    clock.advance(-20_000)
    with pytest.raises(RateLimited) as refusal:
        set_now(store, clock)
    assert refusal.value.retry_after == 21

    clock.advance(21_000)

    assert set_as_many_as_may_be(store, clock) == PER_S


def test_a_clock_that_goes_back_far_locks_nobody_out(store: Store, clock: ManualClock) -> None:
    set_as_many_as_may_be(store, clock)
    clock.advance(-3_600_000)
    assert set_as_many_as_may_be(store, clock) == PER_S
