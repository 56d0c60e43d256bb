"""The connection to the dispatcher that requests on an event loop share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from chalicelib.domain.errors import Unavailable
from chalicelib.embedded.ipc.loop_channel import LoopChannel
from chalicelib.embedded.ipc.suspension import can_suspend, start
from tests.support.loop import on_a_loop, until


class Dispatcher:
    """The other end of the connection, which responds as a test says."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self._received = b""
        self.theirs.setblocking(False)

    def lines(self) -> list[bytes]:
        """Return the requests that have come so far."""
        with suppress(BlockingIOError):
            self._received += self.theirs.recv(65_536)
        return self._received.splitlines()

    def respond(self, data: bytes) -> None:
        self.theirs.sendall(data)


@pytest.fixture
def dispatchers() -> Iterator[list[Dispatcher]]:
    """Return two dispatchers, the second of which follows the first."""
    made = [Dispatcher(), Dispatcher()]
    yield made
    for each in made:
        each.ours.close()
        each.theirs.close()


class Requests:
    """Requests that wait for their responses, each in a greenlet."""

    def __init__(self, channel: LoopChannel) -> None:
        self._channel = channel
        self.results: dict[str, bytes | Exception] = {}

    def begin(self, name: str) -> None:
        def work() -> None:
            assert can_suspend()
            try:
                self.results[name] = self._channel.exchange(name.encode() + b"\n")
            except (OSError, Unavailable) as error:
                self.results[name] = error

        start(work)


@asynccontextmanager
async def opened(
    connect: Callable[[], socket.socket], response_timeout_s: float = 1_000
) -> AsyncIterator[Requests]:
    channel = LoopChannel(
        asyncio.get_running_loop(),
        connect,
        response_timeout_s=response_timeout_s,
        check_interval_s=0.001,
    )
    yield Requests(channel)
    channel.close()


def test_ordinary_code_cannot_be_suspended() -> None:
    assert not can_suspend()


@on_a_loop
async def test_responses_reach_their_requests_in_any_order_and_in_any_parts(
    dispatchers: list[Dispatcher],
) -> None:
    dispatcher = dispatchers[0]
    async with opened(lambda: dispatcher.ours) as requests:
        for name in ("first", "second", "third"):
            requests.begin(name)
        await until(lambda: len(dispatcher.lines()) == 3)
        assert dispatcher.lines() == [b"1 first", b"2 second", b"3 third"]
        dispatcher.respond(b"3 c\n1 ")
        await until(lambda: "third" in requests.results)
        dispatcher.respond(b"a\n2 b\n")
        await until(lambda: len(requests.results) == 3)
        assert requests.results == {"first": b"a", "second": b"b", "third": b"c"}


@on_a_loop
async def test_a_lost_dispatcher_fails_the_requests_that_wait_and_the_next_connects_again(
    dispatchers: list[Dispatcher],
) -> None:
    made = iter(dispatchers)
    async with opened(lambda: next(made).ours) as requests:
        requests.begin("before")
        await until(dispatchers[0].lines)
        dispatchers[0].theirs.close()
        await until(lambda: requests.results)
        assert isinstance(requests.results["before"], ConnectionResetError)
        requests.begin("after")
        await until(dispatchers[1].lines)
        dispatchers[1].respond(b"2 ok\n")
        await until(lambda: len(requests.results) == 2)
        assert requests.results["after"] == b"ok"


@pytest.mark.parametrize("error", [Unavailable("none"), ConnectionRefusedError()])
@on_a_loop
async def test_without_a_dispatcher_requests_fail_and_the_next_tries_again(
    dispatchers: list[Dispatcher], error: Exception
) -> None:
    dispatcher = dispatchers[0]
    outcomes: list[Exception | socket.socket] = [error, dispatcher.ours]

    def connect() -> socket.socket:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with opened(connect) as requests:
        requests.begin("first")
        await until(lambda: requests.results)
        assert requests.results["first"] is error
        requests.begin("second")
        await until(dispatcher.lines)
        assert dispatcher.lines() == [b"2 second"], "a request that failed is not sent later"


@on_a_loop
async def test_a_request_gives_up_and_its_late_response_is_nobody_elses(
    dispatchers: list[Dispatcher],
) -> None:
    dispatcher = dispatchers[0]
    async with opened(lambda: dispatcher.ours, response_timeout_s=0) as requests:
        requests.begin("first")
        await until(lambda: requests.results)
        assert isinstance(requests.results["first"], TimeoutError)
        requests._channel._response_timeout_s = 1_000
        requests.begin("second")
        await until(lambda: len(dispatcher.lines()) == 2)
        dispatcher.respond(b"1 late\n2 ok\n")
        await until(lambda: len(requests.results) == 2)
        assert requests.results["second"] == b"ok"
