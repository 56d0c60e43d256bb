"""An RSGI application, which reads requests on granian's event loop and responds by the gateway.

No thread waits for a client: a thread gets a request once its body is there.
RSGI: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from chalicelib.domain.errors import RequestTimeout, TimersError
from chalicelib.rest.problems import problem
from local.gateway import Environ, Gateway, WSGIHeaders

THREADS = 32
"""Requests that one worker carries out at once. More than cores, as most wait for the disk."""

SLOW_THREADS = 4
"""Slow requests that one worker carries out at once: they have threads of their own."""

PROMPT_BODY_S = 0.1
"""A body that takes longer to come is waited for only if its caller has a valid key."""

BODY_TIMEOUT_S = 10.0
"""How long a body may take to come."""

ResultT = TypeVar("ResultT")


class Headers(Protocol):
    """The headers of a request. Their names are in lower case."""

    def items(self) -> Iterator[tuple[str, str]]:
        """Return each header, one that was sent twice as two."""


class Scope(Protocol):
    """The part of RSGI's HTTP scope that is needed here."""

    method: str
    path: str
    query_string: str
    client: str
    headers: Headers


class HTTPProtocol(Protocol):
    """The part of RSGI's HTTP protocol that is needed here."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Respond."""


class Application:
    """Reads a body within limits, then passes the request to the gateway.

    Requests that only read one row are carried out on the event loop, which saves two switches of
    threads. Every other request gets a thread, because it waits for the dispatcher or for AWS.
    Lists, counts and removals of many timers share a few threads, so that they cannot take all.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        quick: Callable[[Environ], bool],
        slow: Callable[[Environ], bool],
        prompt_body_s: float = PROMPT_BODY_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        """``quick`` tells whether a request may be carried out on the event loop.

        ``slow`` tells whether it may take seconds.
        """
        self._gateway = gateway
        self._quick = quick
        self._slow = slow
        self._prompt_body_s = prompt_body_s
        self._body_timeout_s = body_timeout_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
        self._slow_threads = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="slow")
        # Until a thread has had a response, the store's file may not exist. A thread can wait for
        # it, the event loop must not.
        self._store_exists = False

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Respond to one request."""
        environ = _environ(scope)
        if self._store_exists and self._quick(environ):
            protocol.response_bytes(*self._respond(environ))
            return
        try:
            environ["wsgi.input"] = io.BytesIO(await self._body(environ, protocol))
        except TimersError as error:
            refusal = problem(error)
            headers = [(name, str(value)) for name, value in refusal.headers.items()]
            protocol.response_bytes(refusal.status_code, headers, refusal.body.encode())
            return
        threads = self._slow_threads if self._slow(environ) else self._threads
        status, headers, body = await _run(threads, self._respond, environ)
        self._store_exists = self._store_exists or status < HTTPStatus.INTERNAL_SERVER_ERROR
        protocol.response_bytes(status, headers, body)

    async def _body(self, environ: Environ, protocol: HTTPProtocol) -> bytes:
        """Return the body, at most one byte more than allowed, or nothing if none is read.

        Raises ``RequestTimeout``.
        """
        if not self._gateway.reads_body(environ):
            return b""
        limit = self._gateway.max_body_bytes(environ)
        reading = asyncio.ensure_future(_read(protocol, limit))
        try:
            await asyncio.wait({reading}, timeout=self._prompt_body_s)
            if not reading.done():
                if not await _run(self._threads, self._gateway.admits, environ):
                    return b""  # the gateway refuses the request before it looks at the body
                await asyncio.wait({reading}, timeout=self._body_timeout_s)
            if not reading.done():
                raise RequestTimeout(
                    f"The body did not come within {self._body_timeout_s:g} s. Nothing was changed."
                )
            return reading.result()
        finally:
            reading.cancel()

    def _respond(self, environ: Environ) -> tuple[int, WSGIHeaders, bytes]:
        started: list[tuple[str, WSGIHeaders]] = []
        parts = self._gateway(environ, lambda status, headers: started.append((status, headers)))
        ((status, headers),) = started
        return int(status[:3]), headers, b"".join(parts)


async def _run(
    threads: ThreadPoolExecutor, function: Callable[[Environ], ResultT], environ: Environ
) -> ResultT:
    return await asyncio.get_running_loop().run_in_executor(threads, function, environ)


async def _read(protocol: HTTPProtocol, limit: int) -> bytes:
    body = bytearray()
    async for chunk in protocol:
        body += chunk
        if len(body) > limit:
            break
    return bytes(body)


def _environ(scope: Scope) -> Environ:
    """Return the WSGI environment of a request (PEP 3333), without the body."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path,
        "QUERY_STRING": scope.query_string,
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
    }
    for name, value in scope.headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            key = "HTTP_" + key
        # One header in several lines is the same as their values with commas (RFC 9110, 5.3).
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
