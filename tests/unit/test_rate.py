"""The limiter in memory."""

from __future__ import annotations

import random

import pytest

from chalicelib.domain.errors import RateLimited
from chalicelib.domain.rate import Limiter, Rate
from tests.support.clock import START


def test_a_slow_rate_still_admits_one_timer() -> None:
    slow = Rate(0.1)
    paid_until = slow.admit(0.0, START)
    with pytest.raises(RateLimited) as refusal:
        slow.admit(paid_until, START)
    assert refusal.value.retry_after == 10
    assert slow.admit(paid_until, START + 10_000) == START + 20_000


def test_several_timers_are_admitted_together_or_not_at_all() -> None:
    rate = Rate(10)
    paid_until = rate.admit(0.0, START, count=10)
    assert paid_until == START + 1_000
    with pytest.raises(RateLimited):
        rate.admit(paid_until, START, count=2)
    assert rate.admit(paid_until, START + 200, count=2) == START + 1_200


def test_a_limiter_without_a_rate_admits_everything() -> None:
    limiter = Limiter(None)
    for _ in range(10_000):
        limiter.admit("acme", START)


@pytest.mark.parametrize("jitter_ms", [0, 2, 5, 50, 900, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_threads_whose_clock_readings_are_out_of_order_share_one_rate(
    jitter_ms: float, seed: int
) -> None:
    choose, limiter = random.Random(seed), Limiter(Rate(100))
    accepted, times = 0, []
    for call in range(12_000):  # 3,000 a second
        times.append(int(START + call / 3 - choose.uniform(0, jitter_ms)))
        try:
            limiter.admit("acme", times[-1])
        except RateLimited:
            continue
        accepted += 1
    assert 495 - jitter_ms / 10 <= accepted <= 100 + (max(times) - min(times)) / 10 + 1


def test_a_clock_that_is_behind_does_not_move_the_stored_time_back() -> None:
    limiter = Limiter(Rate(10))
    for _ in range(10):
        limiter.admit("acme", START)
    limiter.admit("acme", START + 100)
    for late in (START, START + 99, START - 59_000, START + 100):
        with pytest.raises(RateLimited):
            limiter.admit("acme", late)
    limiter.admit("acme", START + 200)


def test_a_clock_that_jumped_back_starts_afresh_once() -> None:
    limiter = Limiter(Rate(10))
    for now in (START, START - 120_000):
        for _ in range(10):
            limiter.admit("acme", now)
        with pytest.raises(RateLimited) as refusal:
            limiter.admit("acme", now)
        assert refusal.value.retry_after == 1
