"""Look-ups of host names that hang: they delay no timer of another host."""

from __future__ import annotations

import _thread
import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.sender.resolver import GuardedResolver
from tests.contract.network import SYSTEM_GETADDRINFO
from tests.contract.senders import (
    AMPLE_S,
    OPEN,
    SOON_S,
    BlockingHttpSender,
    Listen,
    Start,
    StartedThreads,
    timed,
)
from tests.support.waiting import eventually

MANY = 300
MAX_LOOKUPS = 8


class FakeHangingResolver:
    """Stands in for the resolver of the system. ``*.silent.example`` hangs until ``release``.

    All other names resolve to this machine.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._came = threading.Semaphore(0)
        self._over = threading.Event()

    def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.append(name)
        if name.endswith("silent.example"):
            self._came.release()
            self._over.wait()
        return SYSTEM_GETADDRINFO(
            "127.0.0.1", port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )

    def wait_for(self, count: int) -> None:
        """Return when ``count`` more look-ups hang."""
        for number in range(count):
            assert self._came.acquire(timeout=AMPLE_S), f"only {number} look-ups are under way"

    def release(self) -> None:
        self._over.set()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHangingResolver]:
    resolver = FakeHangingResolver()
    # Both HTTP libraries call the function of the interpreter.
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.release()


@contextmanager
def calling(sender: Any, urls: list[str]) -> Iterator[list[Future[Outcome]]]:
    """Call all of ``urls`` at once."""
    with ThreadPoolExecutor(len(urls)) as threads:
        yield [threads.submit(sender.send, Call(url=url, headers={})) for url in urls]


def test_hanging_names_delay_no_other_name(
    start: Start, listen: Listen, names: FakeHangingResolver
) -> None:
    receiver, sender = listen(), start(10 * AMPLE_S)
    hanging = [f"http://{number}.silent.example:{receiver.port}/7" for number in range(MANY)]
    with calling(sender, hanging) as calls:
        try:
            names.wait_for(MANY)
            other_call = Call(url=f"http://good.example:{receiver.port}/7", headers={})
            outcome, took_s = timed(sender, other_call)
        finally:
            names.release()
    assert outcome == Outcome(status=200)
    assert took_s < SOON_S
    assert {call.result() for call in calls} == {Outcome(status=200)}


def test_many_calls_of_one_name_look_it_up_once(listen: Listen, names: FakeHangingResolver) -> None:
    receiver, sender = listen(), BlockingHttpSender(AMPLE_S, OPEN)
    with calling(sender, [f"http://silent.example:{receiver.port}/7"] * 20) as calls:
        names.wait_for(1)
        names.release()
    sender.close()
    assert {call.result() for call in calls} == {Outcome(status=200)}
    assert names.asked == ["silent.example"]


def test_a_look_up_without_a_free_slot_is_dropped_once_every_call_has_timed_out(
    names: FakeHangingResolver,
) -> None:
    async def many_urls() -> None:
        resolving = GuardedResolver(OPEN, 0.05, max_lookups=MAX_LOOKUPS)
        under_way = [
            asyncio.create_task(resolving.resolve(f"{number}.silent.example", 80))
            for number in range(MAX_LOOKUPS)
        ]
        queued = (resolving.resolve(f"late-{number}.silent.example", 80) for number in range(50))
        for dropped in await asyncio.gather(*queued, return_exceptions=True):
            assert isinstance(dropped, Unavailable)
        names.release()
        await asyncio.gather(*under_way)
        found = await resolving.resolve("good.example", 80)
        assert [address[0] for *_, address in found] == ["127.0.0.1"]
        await resolving.close()

    asyncio.run(many_urls())
    assert sorted(names.asked) == [
        *(f"{number}.silent.example" for number in range(MAX_LOOKUPS)),
        "good.example",
    ]


def test_a_look_up_that_hangs_outlives_its_call_and_the_loop_in_silence(
    names: FakeHangingResolver, caplog: pytest.LogCaptureFixture
) -> None:
    before = _thread._count()
    sender = BlockingHttpSender(0.05, OPEN)
    outcome = sender.send(Call(url="http://silent.example/7", headers={}))
    assert outcome == Outcome(error="timed out after 0.05 s")
    sender.close()
    names.release()
    eventually(lambda: _thread._count() <= before)
    assert not caplog.records


def test_look_ups_one_after_another_share_a_thread(names: FakeHangingResolver) -> None:
    async def look_up() -> None:
        threads = StartedThreads()
        resolving = GuardedResolver(OPEN, AMPLE_S, start_thread=threads)
        for number in range(20):
            await resolving.resolve(f"{number}.good.example", 80)
        (thread,) = threads.started
        await resolving.close()
        thread.join(AMPLE_S)
        assert not thread.is_alive()

    asyncio.run(look_up())


def test_a_look_up_for_which_there_is_no_thread_leaves_its_slot_to_others(
    names: FakeHangingResolver,
) -> None:
    async def look_up_twice() -> None:
        resolving = GuardedResolver(
            OPEN, AMPLE_S, max_lookups=1, start_thread=StartedThreads(refused=1)
        )
        with pytest.raises(Unavailable):
            await resolving.resolve("good.example", 80)
        assert await resolving.resolve("good.example", 80)
        await resolving.close()

    asyncio.run(look_up_twice())
