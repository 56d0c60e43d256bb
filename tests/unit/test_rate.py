"""The limiter in memory."""

from __future__ import annotations

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
