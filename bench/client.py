"""A small HTTP client for many requests: raw sockets, kept alive, one request at a time on each."""

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

LONGEST_S = 30.0
"""How long one piece of work may take before the server counts as hung."""

_HEAD_END = b"\r\n\r\n"
_STATUS = slice(9, 12)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_NO_CONTENT = 204


class Answer(NamedTuple):
    """One response."""

    status: int
    head: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer. Raises ``BenchError`` when the server hangs up."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Hand over the answer once it is complete."""
        self._received += data
        head, found, rest = self._received.partition(_HEAD_END)
        if not found or self._answer is None:
            return
        status = int(head[_STATUS])
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if not length and status != _NO_CONTENT:
            self._fail(f"an answer without Content-Length: {head[:200]!r}")
        elif len(rest) >= size:
            self._received = b""
            self._answer.set_result(Answer(status, head, rest[:size]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits for an answer."""
        self._fail(f"the server hung up ({exc})")

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchError(reason))


class Load(NamedTuple):
    """What ``hammer`` met: durations in ms, how many answers were no 2xx, seconds in all."""

    durations_ms: list[float]
    errors: int
    elapsed_s: float


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, body: str) -> bytes:
    """Return a POST request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


async def each(
    port: int,
    connections: int,
    jobs: Iterable[T],
    work: Callable[[Connection, T], Awaitable[R]],
) -> list[R]:
    """Do ``work`` on every job, as many at a time as there are connections."""
    loop = asyncio.get_running_loop()
    queue = iter(jobs)

    async def serve() -> list[R]:
        _, connection = await loop.create_connection(Connection, HOST, port)
        try:
            return [await asyncio.wait_for(work(connection, job), LONGEST_S) for job in queue]
        finally:
            connection.close()

    done = await asyncio.gather(*(serve() for _ in range(connections)))
    return [result for results in done for result in results]


async def hammer(port: int, request: bytes, connections: int, duration_s: float) -> Load:
    """Send one request over and over on every connection for ``duration_s`` seconds."""
    durations: list[float] = []
    errors = 0
    began = time.perf_counter()

    async def repeat(connection: Connection, _number: int) -> None:
        nonlocal errors
        sent = time.perf_counter()
        while sent < began + duration_s:
            answer = await connection.ask(request)
            answered = time.perf_counter()
            durations.append((answered - sent) * 1000)
            errors += answer.status // 100 != 2
            sent = answered

    await each(port, connections, range(connections), repeat)
    return Load(durations, errors, time.perf_counter() - began)
