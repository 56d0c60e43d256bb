"""Turns for slow requests: one tenant cannot take every thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chalicelib.domain.errors import Unavailable
from local.slow_requests import SlowRequests
from tests.support.loop import on_a_loop, until
from tests.support.waiting import PATIENCE_S


class Work:
    """Work that takes a thread until it is released; ``done`` has the tenants whose work ended."""

    def __init__(self, slow: SlowRequests) -> None:
        self._slow = slow
        self.released = threading.Event()
        self.begun: list[str] = []
        self.done: list[str] = []

    def submit(self, tenant: str) -> None:
        def work() -> str:
            self.begun.append(tenant)
            assert self.released.wait(PATIENCE_S)
            return tenant

        self._slow.submit(tenant, work, self.done.append)


def slow_requests(threads: int, share: int, max_waiting: int = 100) -> SlowRequests:
    loop = asyncio.get_running_loop()
    return SlowRequests(loop, threads=threads, share=share, max_waiting=max_waiting)


@on_a_loop
async def test_a_tenant_leaves_threads_for_others() -> None:
    work = Work(slow_requests(threads=4, share=2))
    for _ in range(10):
        work.submit("a")
    work.submit("b")
    await until(lambda: len(work.begun) == 3)
    assert sorted(work.begun) == ["a", "a", "b"]
    work.released.set()
    await until(lambda: len(work.done) == 11)


@on_a_loop
async def test_tenants_take_turns() -> None:
    work = Work(slow_requests(threads=1, share=1))
    for tenant in "aaabbc":
        work.submit(tenant)
    work.released.set()
    await until(lambda: len(work.done) == 6)
    assert work.done == ["a", "a", "b", "c", "a", "b"]


@on_a_loop
async def test_a_tenant_alone_may_have_every_thread_if_its_share_is_all() -> None:
    work = Work(slow_requests(threads=3, share=3))
    for _ in range(5):
        work.submit("a")
    await until(lambda: len(work.begun) == 3)
    work.released.set()
    await until(lambda: len(work.done) == 5)


@on_a_loop
async def test_work_beyond_the_queue_of_a_tenant_is_refused_and_others_are_not() -> None:
    work = Work(slow_requests(threads=2, share=1, max_waiting=2))
    for _ in range(3):
        work.submit("a")
    with pytest.raises(Unavailable) as refused:
        work.submit("a")
    assert refused.value.retry_after >= 1
    work.submit("b")
    work.released.set()
    await until(lambda: len(work.done) == 4)
    work.submit("a")
    await until(lambda: len(work.done) == 5)
