"""Clients that are slow or silent: they delay nobody, and get a response themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.raw import HOST, TIMER, conversation, post
from tests.e2e.server import Server

JSON = "Content-Type: application/json"
MORE_THAN_THREADS = 200
"""More than two workers have threads."""


@pytest.fixture
def stalled(make_server: MakeServer) -> Iterator[tuple[Server, ExitStack]]:
    server = make_server()
    server.start()
    with ExitStack() as stack:
        yield server, stack


@pytest.mark.parametrize(
    "start",
    [
        post(f"{JSON}\r\nContent-Length: {len(TIMER)}\r\n", TIMER[:5]),
        post(f"{JSON}\r\nTransfer-Encoding: chunked\r\n", "5\r\n"),
        f"PUT /timers HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\n",
        f"GET /health HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\n",
        "POST /timers HTTP/1.1\r\nHost: loc",
        "",
    ],
    ids=["length", "chunked", "no such method", "health", "half a head", "silent"],
)
def test_clients_that_stall_delay_nobody(stalled: tuple[Server, ExitStack], start: str) -> None:
    server, stack = stalled
    for _ in range(MORE_THAN_THREADS):
        stack.enter_context(conversation(server.port)).send(start)
    timer_id = server.set_timer("http://127.0.0.1:1/", 3600)
    assert timer_id in server.timers()
    assert server.healthy()


def test_a_body_that_never_comes_gets_408_and_sets_no_timer(
    stalled: tuple[Server, ExitStack],
) -> None:
    server, stack = stalled
    client = stack.enter_context(conversation(server.port))
    client.send(post(f"{JSON}\r\nContent-Length: {len(TIMER)}\r\n", TIMER[:-1]))
    response = client.response()
    assert response.status == 408
    assert response.json()["type"] == "urn:webhook-timers:request-timeout"
    assert client.read() is None, "the connection is closed: the rest is no request"
    assert server.timers() == {}
