"""The health check: how often the store is asked, and what those who ask are told."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.domain.errors import Unavailable
from chalicelib.service.health import HealthCheck


class FakeStore:
    """A store that counts its checks. ``down`` makes them fail."""

    def __init__(self) -> None:
        self.checks = 0
        self.down = False
        self.now_s = 100.0

    def check(self) -> None:
        self.checks += 1
        if self.down:
            raise Unavailable("disk full", retry_after=3)

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def health(store: FakeStore) -> HealthCheck:
    return HealthCheck(store.check, store.clock)


def test_the_store_is_checked_once_a_second_for_all_who_ask(
    store: FakeStore, health: HealthCheck
) -> None:
    for _ in range(100):
        health.check()
    assert store.checks == 1
    store.now_s += 0.999
    health.check()
    assert store.checks == 1
    store.now_s += 0.001
    health.check()
    assert store.checks == 2


def test_a_failure_is_told_to_all_who_ask_and_is_checked_again(
    store: FakeStore, health: HealthCheck
) -> None:
    store.down = True
    for _ in range(3):
        with pytest.raises(Unavailable, match="disk full") as failure:
            health.check()
        assert failure.value.retry_after == 3
    assert store.checks == 1
    store.down = False
    store.now_s += 1
    health.check()
    assert store.checks == 2


def test_threads_that_ask_at_once_share_one_check() -> None:
    checks: list[int] = []

    def slow_check() -> None:
        checks.append(threading.get_ident())
        time.sleep(0.05)

    health = HealthCheck(slow_check)
    with ThreadPoolExecutor(16) as threads:
        for asked in [threads.submit(health.check) for _ in range(16)]:
            asked.result()
    assert len(checks) == 1
