"""The RSGI application: bodies that come late, never, or without a key."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from chalicelib.domain.errors import TimersError, Unauthorized
from chalicelib.rest.problems import problem
from chalicelib.rest.reading import MAX_BODY_BYTES
from local.gateway import Environ, StartResponse
from local.rsgi import Application

LONG_S = 30.0


class FakeHeaders:
    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)


@dataclass
class FakeScope:
    method: str = "POST"
    path: str = "/timers"
    query_string: str = ""
    client: str = "127.0.0.1:50000"
    headers: Any = field(default_factory=lambda: FakeHeaders(("content-length", "4")))


class FakeClient:
    """Sends a body in chunks; after the last one of an unfinished body it waits for ever."""

    def __init__(self, *chunks: bytes, finished: bool = True) -> None:
        self._chunks = chunks
        self._finished = finished
        self.chunks_read = 0
        self.response: tuple[int, dict[str, str], Any] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.chunks_read += 1
            yield chunk
        if not self._finished:
            await asyncio.Event().wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        assert self.response is None
        self.response = status, dict(headers), json.loads(body) if body else None

    @property
    def status(self) -> int:
        assert self.response, "no response"
        return self.response[0]


class FakeGateway:
    """Responds with what it was sent, or refuses its caller."""

    def __init__(self, *, admits: bool = True) -> None:
        self._admits = admits
        self.environs: list[Environ] = []
        self.threads: list[threading.Thread] = []

    def max_body_bytes(self, environ: Environ) -> int:
        return MAX_BODY_BYTES

    def reads_body(self, environ: Environ) -> bool:
        return bool(environ["REQUEST_METHOD"] == "POST")

    def admits(self, _environ: Environ) -> bool:
        return self._admits

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        self.environs.append(environ)
        self.threads.append(threading.current_thread())
        error: TimersError | None = None if self._admits else Unauthorized()
        body = environ["wsgi.input"].read() if "wsgi.input" in environ else b""
        start_response("401 Unauthorized" if error else "200 OK", [("Content-Type", "x/y")])
        text = problem(error).body if error else json.dumps({"length": len(body)})
        return [text.encode()]


def respond(
    gateway: FakeGateway,
    *clients: FakeClient,
    scope: FakeScope | None = None,
    prompt_body_s: float = LONG_S,
    body_timeout_s: float = LONG_S,
) -> None:
    """Let the clients send one request each, all at once; return when each has its response."""
    application = Application(
        gateway,  # type: ignore[arg-type]
        quick=lambda environ: bool(environ["REQUEST_METHOD"] == "GET"),
        slow=lambda _environ: False,
        prompt_body_s=prompt_body_s,
        body_timeout_s=body_timeout_s,
    )

    async def all_of_them() -> None:
        requests = [application.__rsgi__(scope or FakeScope(), client) for client in clients]
        await asyncio.gather(*requests)

    asyncio.run(all_of_them())


def test_a_body_is_read_to_its_end() -> None:
    client = FakeClient(b"ab", b"cd")
    respond(FakeGateway(), client)
    assert client.response == (200, {"Content-Type": "x/y"}, {"length": 4})


def test_a_body_that_does_not_come_is_408() -> None:
    client, gateway = FakeClient(b"ab", finished=False), FakeGateway()
    respond(gateway, client, prompt_body_s=0, body_timeout_s=0.01)
    assert client.status == 408
    assert client.response
    assert client.response[1]["Content-Type"] == "application/problem+json"
    assert client.response[2]["type"] == "urn:webhook-timers:request-timeout"
    assert gateway.environs == []


def test_more_stalled_bodies_than_threads_do_not_delay_a_request() -> None:
    stalled = [FakeClient(finished=False) for _ in range(200)]
    prompt = FakeClient(b"abcd")
    gateway = FakeGateway()
    respond(gateway, *stalled, prompt, prompt_body_s=0.05, body_timeout_s=0.05)
    assert prompt.status == 200
    assert {client.status for client in stalled} == {408}
    assert len(gateway.environs) == 1


def test_a_caller_without_a_key_is_refused_before_its_slow_body_comes() -> None:
    client = FakeClient(finished=False)
    respond(FakeGateway(admits=False), client, prompt_body_s=0)
    assert client.status == 401


def test_no_more_of_a_body_is_read_than_shows_that_it_is_too_long() -> None:
    client = FakeClient(b"x" * MAX_BODY_BYTES, b"y", b"z", b"z")
    respond(FakeGateway(), client)
    assert client.chunks_read == 2
    assert client.response
    assert client.response[2] == {"length": MAX_BODY_BYTES + 1}


def test_a_body_that_nobody_reads_is_not_waited_for() -> None:
    client = FakeClient(finished=False)
    respond(FakeGateway(), client, scope=FakeScope(method="DELETE"))
    assert client.status == 200
    assert client.chunks_read == 0


def test_slow_requests_leave_threads_for_the_others() -> None:
    other_is_done = threading.Event()

    class Blocking(FakeGateway):
        def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
            if environ["PATH_INFO"] == "/slow":
                assert other_is_done.wait(LONG_S)
            return super().__call__(environ, start_response)

    application = Application(
        Blocking(),  # type: ignore[arg-type]
        quick=lambda _environ: False,
        slow=lambda environ: bool(environ["PATH_INFO"] == "/slow"),
    )

    async def many_slow_ones_and_one_other() -> None:
        slow = [
            asyncio.create_task(application.__rsgi__(FakeScope("GET", "/slow"), FakeClient()))
            for _ in range(100)
        ]
        await asyncio.sleep(0)
        await application.__rsgi__(FakeScope("GET", "/other"), FakeClient())
        other_is_done.set()
        await asyncio.gather(*slow)

    asyncio.run(asyncio.wait_for(many_slow_ones_and_one_other(), LONG_S))


def test_a_quick_request_runs_on_the_event_loop_once_the_store_exists() -> None:
    gateway = FakeGateway()
    application = Application(
        gateway,  # type: ignore[arg-type]
        quick=lambda _environ: True,
        slow=lambda _environ: False,
    )

    async def one_after_the_other() -> None:
        for _ in range(2):
            await application.__rsgi__(FakeScope(method="GET"), FakeClient())

    asyncio.run(one_after_the_other())
    first, second = gateway.threads
    assert first is not threading.main_thread()
    assert second is threading.main_thread()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((("content-type", "a/b"),), {"CONTENT_TYPE": "a/b"}),
        ((("user-agent", "x"),), {"HTTP_USER_AGENT": "x"}),
        ((("accept", "a/b"), ("accept", "c/d")), {"HTTP_ACCEPT": "a/b,c/d"}),
    ],
    ids=["without prefix", "with prefix", "sent twice"],
)
def test_headers_are_passed_on(
    headers: tuple[tuple[str, str], ...], expected: dict[str, str]
) -> None:
    gateway = FakeGateway()
    respond(gateway, FakeClient(), scope=FakeScope("GET", headers=FakeHeaders(*headers)))
    (environ,) = gateway.environs
    assert {key: environ[key] for key in expected} == expected
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
