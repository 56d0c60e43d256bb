"""A small HTTP client for many requests, one at a time on each kept-alive connection.

It parses as little as possible, because it shares the machine with the server that it measures.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar, cast

from bench.figures import BenchError
from bench.server import HOST

T = TypeVar("T")
R = TypeVar("R")

TIMEOUT_S = 30.0
"""How long the work on one job may take; then the server counts as hung."""

_HEAD_END = b"\r\n\r\n"
_STATUS = slice(9, 12)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_NO_CONTENT = 204


class Response(NamedTuple):
    """One response of the server."""

    status: int
    head: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self._received = b""
        self._response: asyncio.Future[Response] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    async def send(self, request: bytes) -> Response:
        """Send a request and return its response. Raises ``BenchError`` if the server hangs up."""
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._response

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Hand over the response once it is complete."""
        self._received += data
        head, found, rest = self._received.partition(_HEAD_END)
        if not found or self._response is None:
            return
        status = int(head[_STATUS])
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if not length and status != _NO_CONTENT:
            self._fail(f"a response without Content-Length: {head[:200]!r}")
        elif len(rest) >= size:
            self._received = b""
            self._response.set_result(Response(status, head, rest[:size]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits for a response."""
        self._fail(f"the server hung up ({exc})")

    def _fail(self, reason: str) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(BenchError(reason))


class Load(NamedTuple):
    """The result of ``hammer``: durations (ms), responses other than 2xx, total time (s)."""

    durations_ms: list[float]
    errors: int
    elapsed_s: float


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, body: str, key: str | None = None) -> bytes:
    """Return a POST request with a JSON body, of the caller with this API key."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    if key is not None:
        head += f"Authorization: Bearer {key}\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


async def each(
    port: int,
    connections: int,
    jobs: Iterable[T],
    work: Callable[[Connection, T], Awaitable[R]],
) -> list[R]:
    """Do ``work`` on every job, as many at a time as there are connections."""
    loop = asyncio.get_running_loop()
    # All connections take jobs from one iterator, so each takes its next one when it is free.
    queue = iter(jobs)

    async def serve() -> list[R]:
        _, connection = await loop.create_connection(Connection, HOST, port)
        try:
            return [await asyncio.wait_for(work(connection, job), TIMEOUT_S) for job in queue]
        finally:
            connection.close()

    done = await asyncio.gather(*(serve() for _ in range(connections)))
    return [result for results in done for result in results]


async def hammer(port: int, request: bytes, connections: int, duration_s: float) -> Load:
    """Send one request again and again on every connection for ``duration_s`` seconds."""
    durations_ms: list[float] = []
    errors = 0
    began = time.perf_counter()

    async def repeat(connection: Connection, _number: int) -> None:
        nonlocal errors
        sent = time.perf_counter()
        while sent < began + duration_s:
            response = await connection.send(request)
            received = time.perf_counter()
            durations_ms.append((received - sent) * 1000)
            errors += response.status // 100 != 2
            sent = received

    await each(port, connections, range(connections), repeat)
    return Load(durations_ms, errors, time.perf_counter() - began)
