"""One connection of a client: requests in, responses out, and what a client may not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from local.connections import Connections
from local.gateway import response_to
from local.http_connection import (
    MAX_AHEAD_BYTES,
    MAX_BACKLOG_BYTES,
    MAX_LINGER_BYTES,
    MAX_UNCOUNTED_BYTES,
    Connection,
    Timeouts,
)
from local.http_message import HttpRequest, HttpResponse
from tests.support.loop import on_a_loop, until

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
BODY = b'{"a": 1}'
POST = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n" + BODY
CHUNKED = (
    b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n" + BODY[:3] + b"\r\n"
    b"5;x=y\r\n" + BODY[3:] + b"\r\n0\r\nTrailer: t\r\n\r\n"
)
LIMIT = 100


class FakeTransport(asyncio.Transport):
    """Keeps what is written. With ``stalled``, it is as if the client read nothing."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.written = b""
        self.stalled = False
        self.paused = False
        self.closed = False
        self.aborted = False
        self.half_closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.closed
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == MAX_BACKLOG_BYTES

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.stalled else 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class FakeApplication:
    """Responds to each request, at once or when it is told to."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.waiting: list[Callable[[HttpResponse], None]] = []
        self.at_once = True
        self.limit = LIMIT
        self.admitted: bool | None = True

    def reads_body(self, request: HttpRequest) -> bool:
        return request.method == "POST"

    def max_body_bytes(self, _request: HttpRequest) -> int:
        return self.limit

    def admit(self, _request: HttpRequest, done: Callable[[bool], None]) -> None:
        if self.admitted is not None:
            done(self.admitted)

    def carry_out(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        self.requests.append(request)
        self.waiting.append(done)
        if self.at_once:
            self.respond()

    def respond(self, body: bytes = b"") -> None:
        request = self.requests[len(self.requests) - len(self.waiting)]
        done = self.waiting.pop(0)
        if request.fault is not None:
            done(response_to(request.fault))
            return
        text = body or json.dumps([request.method, request.path, len(request.body)]).encode()
        done(HttpResponse(200, {"Content-Length": str(len(text))}, text))


class Client:
    """A client of one connection, which belongs to the running event loop."""

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        beside: Client | None = None,
        max_open: int = 10,
        **limits: Any,
    ) -> None:
        """With ``beside``, both are clients of one worker."""
        loop = asyncio.get_running_loop()
        self.application = FakeApplication()
        self.connections: Connections = (
            beside.connections if beside else Connections(loop, max_open, **limits)
        )
        self.transport = FakeTransport()
        self.connection = Connection(
            self.application, self.connections, loop, timeouts or Timeouts()
        )
        self.connection.connection_made(self.transport)

    async def send(self, data: bytes) -> None:
        self.connection.data_received(data)
        await turns()

    def statuses(self) -> list[int]:
        lines = self.transport.written.split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]

    @property
    def problem(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.transport.written.rpartition(b"\r\n\r\n")[2])
        return body


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("request_bytes", [GET, POST, CHUNKED], ids=["GET", "POST", "chunked"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@on_a_loop
async def test_a_request_may_come_in_parts_of_any_size(request_bytes: bytes, size: int) -> None:
    client = Client()
    for start in range(0, len(request_bytes), size):
        await client.send(request_bytes[start : start + size])
    (request,) = client.application.requests
    assert (request.path, request.client) == ("/a", "192.0.2.1")
    assert request.body == (b"" if request.method == "GET" else BODY)
    assert client.statuses() == [200]
    assert not client.transport.closed


@on_a_loop
async def test_requests_in_one_packet_are_carried_out_one_after_another() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(GET + POST + CHUNKED + GET)
    for number in range(1, 5):
        assert len(client.application.requests) == number, "not before the response to the last"
        client.application.respond()
        await turns()
    assert [len(request.body) for request in client.application.requests] == [0, 8, 8, 0]
    assert client.statuses() == [200] * 4


@on_a_loop
async def test_no_more_is_read_while_much_waits_for_a_response() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(GET)
    await client.send(GET * (MAX_AHEAD_BYTES // len(GET) + 1))
    assert client.transport.paused
    client.application.at_once = True
    client.application.respond()
    await until(lambda: not client.connection._received)
    assert not client.transport.paused


@on_a_loop
async def test_a_client_that_closes_its_sending_half_gets_its_response() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(POST)
    assert client.connection.eof_received() is True
    client.application.respond()
    assert client.statuses() == [200]
    assert client.transport.closed


@on_a_loop
async def test_a_client_that_closes_with_requests_waiting_gets_every_response() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(GET + POST)
    assert client.connection.eof_received() is True
    client.application.respond()
    await turns()
    client.application.respond()
    assert client.statuses() == [200, 200]
    assert client.transport.closed


@pytest.mark.parametrize("part", [b"", GET[:10], POST[:-1]])
@on_a_loop
async def test_the_end_of_an_unfinished_request_closes_the_connection(part: bytes) -> None:
    client = Client()
    await client.send(part)
    assert client.connection.eof_received() is False
    assert client.application.requests == []


@on_a_loop
async def test_a_client_that_has_gone_has_its_request_carried_out() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(POST)
    client.connection.connection_lost(None)
    client.application.respond()
    assert client.transport.written == b""
    assert len(client.connections) == 0


@on_a_loop
async def test_http_1_0_and_close_end_the_connection() -> None:
    for head in (
        b"GET / HTTP/1.0\r\n\r\n",
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    ):
        client = Client()
        await client.send(head + GET)
        assert client.statuses() == [200]
        assert b"Connection: close\r\n" in client.transport.written
        assert client.transport.closed


@on_a_loop
async def test_bytes_that_are_no_request_get_400_and_no_more_is_read_of_them() -> None:
    client = Client()
    await client.send(b"hello\r\n\r\n" + GET)
    assert client.statuses() == [400]
    assert client.problem["type"].endswith("bad-request")
    assert client.transport.half_closed
    await client.send(GET)
    assert client.application.requests == []
    await client.send(b"x" * (MAX_LINGER_BYTES + 1))
    assert client.transport.aborted


@on_a_loop
async def test_smuggled_bytes_behind_a_refused_body_are_no_request() -> None:
    client = Client()
    await client.send(CHUNKED.replace(b"5;x=y", b"zz") + GET)
    assert client.statuses() == [400]
    assert client.application.requests == []


@on_a_loop
async def test_a_body_that_nobody_reads_is_not_waited_for() -> None:
    client = Client()
    await client.send(b"DELETE /a HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n")
    assert client.statuses() == [200]
    assert client.transport.half_closed, "its rest may still come, and is no request"


@on_a_loop
async def test_a_body_that_nobody_reads_but_that_came_leaves_the_connection_open() -> None:
    client = Client()
    await client.send(POST.replace(b"POST", b"DELETE") + GET)
    assert client.statuses() == [200, 200]
    assert [request.body for request in client.application.requests] == [b"", b""]


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 101\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n65\r\n"],
)
@on_a_loop
async def test_a_body_that_is_too_long_is_refused_before_it_comes(body: bytes) -> None:
    client = Client()
    await client.send(b"POST /a HTTP/1.1\r\nHost: h\r\n" + body)
    assert client.statuses() == [413]
    assert client.transport.half_closed


@on_a_loop
async def test_an_expected_100_continue_is_sent_to_an_admitted_caller() -> None:
    client = Client()
    await client.send(POST[: -len(BODY)].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert client.statuses() == [100]
    await client.send(BODY)
    assert client.statuses() == [100, 200]


@on_a_loop
async def test_a_caller_without_a_key_is_refused_before_its_slow_body_comes() -> None:
    client = Client(timeouts=Timeouts(prompt_body_s=0))
    client.application.admitted = False
    await client.send(POST[:-1])
    await until(lambda: client.application.requests)
    assert client.application.requests[0].body == b""
    assert client.transport.half_closed


@on_a_loop
async def test_a_body_that_does_not_come_gets_408() -> None:
    client = Client(timeouts=Timeouts(prompt_body_s=0, body_s=0, linger_s=0))
    await client.send(POST[:-1])
    await until(lambda: client.transport.closed)
    assert client.statuses() == [408]
    assert client.application.requests == []


@on_a_loop
async def test_a_caller_who_is_still_being_looked_up_gets_408_too() -> None:
    client = Client(timeouts=Timeouts(prompt_body_s=0, body_s=0))
    client.application.admitted = None
    await client.send(POST[:-1])
    await until(lambda: client.statuses() == [408])


@on_a_loop
async def test_a_body_that_comes_during_the_look_up_is_carried_out() -> None:
    client = Client(timeouts=Timeouts(prompt_body_s=0))
    client.application.admitted = None
    await client.send(POST[:-1])
    await client.send(POST[-1:])
    assert client.statuses() == [200]


@pytest.mark.parametrize("part", [b"G", GET[:-1]])
@on_a_loop
async def test_a_head_that_does_not_come_gets_408(part: bytes) -> None:
    client = Client(timeouts=Timeouts(head_s=0, linger_s=0))
    await client.send(part)
    await until(lambda: client.transport.closed)
    assert client.statuses() == [408]


@on_a_loop
async def test_a_silent_connection_is_left_open() -> None:
    client = Client(timeouts=Timeouts(head_s=0))
    await client.send(b"")
    await client.send(b"\r\n")
    assert client.transport.written == b""
    assert not client.transport.closed


@on_a_loop
async def test_no_further_request_is_carried_out_until_the_client_reads() -> None:
    client = Client()
    await client.send(GET)
    client.connection.pause_writing()
    await client.send(GET)
    assert len(client.application.requests) == 1
    client.connection.resume_writing()
    await turns()
    assert len(client.application.requests) == 2


@on_a_loop
async def test_a_body_that_came_while_the_client_did_not_read_is_carried_out_afterwards() -> None:
    client = Client()
    head, _, body = POST.partition(b"\r\n\r\n")
    await client.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
    client.connection.pause_writing()  # the 100 fills the backlog
    await client.send(body)
    assert client.application.requests == []
    client.connection.resume_writing()
    await turns()
    assert [request.body for request in client.application.requests] == [BODY]


@on_a_loop
async def test_a_long_response_is_503_while_others_are_not_read() -> None:
    long = b"x" * (MAX_BACKLOG_BYTES + 1)
    client = Client(max_unsent_bytes=2 * len(long) - 1)
    other = Client(beside=client)
    for each in (client, other):
        each.application.at_once = False
        each.transport.stalled = True
        await each.send(GET)
    client.application.respond(long)
    client.connection.pause_writing()  # as a transport does that has more than the limit to send
    other.application.respond(long)
    assert (client.statuses(), other.statuses()) == ([200], [503])
    client.transport.stalled = False
    client.connection.resume_writing()
    await other.send(GET)
    other.application.respond(long)
    assert other.statuses() == [503, 200]


@on_a_loop
async def test_bodies_that_wait_have_room_together() -> None:
    client = Client(max_received_bytes=10)
    await client.send(POST[:-1])
    other = Client(beside=client)
    await other.send(POST[:-2])
    assert other.statuses() == [503]
    await client.send(POST[-1:])
    assert client.statuses() == [200]
    assert client.connections.received(client.connection, 10), "the room is free again"


@on_a_loop
async def test_long_bodies_that_came_at_once_have_room_together_until_their_responses() -> None:
    size = MAX_UNCOUNTED_BYTES + 1
    post = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    clients = [Client(max_received_bytes=size + 10)]
    clients.append(Client(beside=clients[0]))
    for client in clients:
        client.application.limit = size
        client.application.at_once = False
        await client.send(post)
    for client in clients:
        client.application.respond()
    assert [client.statuses() for client in clients] == [[200], [503]]
    await clients[1].send(GET)
    clients[1].application.respond()
    assert clients[1].statuses() == [503, 200], "all of the body was read"


@on_a_loop
async def test_one_connection_too_many_is_refused_if_all_have_a_request_in_hand() -> None:
    client = Client(max_open=1)
    client.application.at_once = False
    await client.send(GET)
    other = Client(beside=client)
    assert other.statuses() == [503]
    assert other.transport.closed
    assert not client.transport.closed


@on_a_loop
async def test_one_connection_too_many_replaces_one_that_waits() -> None:
    client = Client(max_open=1)
    await client.send(GET)
    other = Client(beside=client)
    assert client.transport.aborted
    assert not other.transport.closed


@on_a_loop
async def test_a_stop_closes_idle_connections_and_waits_for_requests_in_hand() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(GET + GET)
    stopped = asyncio.ensure_future(client.connections.stop(grace_s=60))
    await turns()
    assert not client.transport.closed
    client.application.respond()
    assert client.transport.closed
    client.connection.connection_lost(None)
    assert await stopped is True
    assert client.statuses() == [200], "the next request is not begun"


@on_a_loop
async def test_a_stop_does_not_wait_for_ever() -> None:
    client = Client()
    client.application.at_once = False
    await client.send(GET)
    assert await client.connections.stop(grace_s=0) is False
