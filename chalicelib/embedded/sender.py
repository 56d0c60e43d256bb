"""The sender of the embedded engine: aiohttp, thousands of calls in flight on one event loop."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import ssl
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from chalicelib.domain.failure import Failure, system_error, timed_out, unexpected
from chalicelib.domain.response import (
    MAX_DRAIN_BYTES,
    MAX_DRAIN_S,
    MAX_RESPONSE_BYTES,
    ResponseTooLong,
    parse_retry_after,
)
from chalicelib.domain.ssrf_guard import ForbiddenTarget, Guard
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.resolver import GuardedResolver

KEEPALIVE_S = 15.0
"""How long an idle connection is kept for the next call to the same receiver."""

_MIN_TIMEOUT_S = 0.001
"""aiohttp reads a timeout of 0 as no timeout."""

_FAILURES: dict[type[Exception], Failure] = {
    ForbiddenTarget: Failure.FORBIDDEN_TARGET,
    ResponseTooLong: Failure.RESPONSE_TOO_LONG,
    aiohttp.ClientConnectorDNSError: Failure.HOST_NOT_FOUND,
    aiohttp.ServerDisconnectedError: Failure.CLOSED_WITHOUT_RESPONSE,
    aiohttp.ClientSSLError: Failure.TLS_FAILED,
    ssl.SSLError: Failure.TLS_FAILED,
}


class AiohttpSender:
    """Sends each call as one empty POST. It must be made and closed on a running event loop.

    The deadline (s) covers a call from the look-up of the name to the last header of the response.
    The sender follows no redirect, uses no proxy of the environment and keeps no cookie. It
    connects only to addresses that ``guard`` allows.
    """

    def __init__(self, deadline_s: float, guard: Guard, *, drain_s: float = MAX_DRAIN_S) -> None:
        self._deadline_s = deadline_s
        self._drain_s = drain_s
        self._resolver = GuardedResolver(guard, deadline_s)
        connector = functools.partial(_CheckedConnector, guard, self._resolver)
        self._session = _open_session(connector(keepalive_timeout=KEEPALIVE_S))
        # This session keeps no connection, so each of its calls has a new one.
        self._fresh_session = _open_session(connector(force_close=True))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._fresh_session.close()
        await self._resolver.close()

    async def send(self, call: Call) -> Outcome:
        """Send an empty POST and return its outcome, within the deadline."""
        try:
            return await self._send(call)
        except Exception as error:  # noqa: BLE001 - each failure is an outcome
            return Outcome(error=_failure_text(error, call.deadline_s(self._deadline_s)))

    async def _send(self, call: Call) -> Outcome:
        clock = asyncio.get_running_loop().time
        deadline_s = call.deadline_s(self._deadline_s)
        expires_at = clock() + deadline_s
        try:
            return await self._post(self._session, call, deadline_s)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            used = _current_protocol.get()
            if used is None or not used.reused or used.response_began:
                raise
        # The receiver had closed a kept connection while it was idle. That is no failure of this
        # attempt: send once more, on a connection that is certainly new.
        return await self._post(
            self._fresh_session, call, max(expires_at - clock(), _MIN_TIMEOUT_S)
        )

    async def _post(
        self, session: aiohttp.ClientSession, call: Call, remaining_s: float
    ) -> Outcome:
        _current_protocol.set(None)  # until the connector has a connection for this call
        response = await session.post(
            URL(call.url, encoded=True),  # yarl would write escapes anew: %2f%7E as %2F~
            headers=call.headers,
            allow_redirects=False,
            # By default, aiohttp rounds a timeout of more than 5 s up to a whole second.
            timeout=aiohttp.ClientTimeout(total=remaining_s, ceil_threshold=math.inf),
        )
        async with response:
            if not response.content.at_eof():
                await _drain(response.content, self._drain_s)
        retry_after = parse_retry_after(response.headers.get("Retry-After", ""))
        return Outcome(status=response.status, retry_after=retry_after)


def _open_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """Return a session that sends only the headers of a call, and reads no environment."""
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Otherwise aiohttp sends "Content-Type: application/octet-stream" with an empty body.
        skip_auto_headers=("Content-Type", "Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,  # nobody reads the body, and a small one could grow huge
        trust_env=False,
    )


class _BoundedProtocol(ResponseHandler):
    """Reads a limited part of each response, and records whether a response has begun.

    aiohttp 3.14 has one protocol for each connection, for all the responses on it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.reused = False
        """Whether the connection has served another call before this one."""
        self._used = False
        self._bytes_left = MAX_RESPONSE_BYTES

    @property
    def response_began(self) -> bool:
        """Whether the receiver has sent any byte since the last request."""
        return self._bytes_left < MAX_RESPONSE_BYTES

    def begin_call(self) -> None:
        """Prepare for the response to the next request."""
        self.reused, self._used = self._used, True
        self._bytes_left = MAX_RESPONSE_BYTES

    def data_received(self, data: bytes) -> None:
        """Parse ``data`` up to the limit. Beyond it, fail the call and end the connection."""
        self._bytes_left -= len(data)
        if self._bytes_left >= 0:
            super().data_received(data)
            return
        # The headers may be complete in the part below the limit: then the status counts.
        super().data_received(data[: self._bytes_left])
        self.set_exception(ResponseTooLong())
        if self.transport is not None:
            self.transport.abort()  # at once: `close` waits for the rest of the request


_current_protocol: ContextVar[_BoundedProtocol | None] = ContextVar("protocol", default=None)
"""The connection of the call that this task makes; None before it has one.

When ``ClientSession.post`` raises, it does not tell which connection it used. The connector runs in
the same task, so it stores the connection here. (aiohttp's tracing has it too, but doubles the cost
of a call.)
"""


class _CheckedConnector(aiohttp.TCPConnector):
    """Connects to checked addresses only, and records the connection of each call."""

    def __init__(self, guard: Guard, resolver: GuardedResolver, **options: Any) -> None:
        make_socket = functools.partial(_checked_socket, guard)
        # No limit here (0): the dispatcher limits the calls in flight.
        super().__init__(limit=0, resolver=resolver, socket_factory=make_socket, **options)
        # aiohttp 3.14 has no option for the protocol. BaseConnector makes that of every new
        # connection with this attribute.
        self._factory = functools.partial(_BoundedProtocol, self._loop)  # type: ignore[assignment]

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        """Record the connection, kept or new. aiohttp 3.14 gets every connection with this."""
        connection = await super().connect(req, traces, timeout)
        if isinstance(connection.protocol, _BoundedProtocol):
            connection.protocol.begin_call()
            _current_protocol.set(connection.protocol)
        return connection

    async def _wrap_create_connection(
        self, *arguments: Any, addr_infos: list[Any], **options: Any
    ) -> Any:
        """Try each address once.

        In aiohttp 3.14, one call of this tries all addresses. If it fails, the caller removes the
        first address of each family from the list and calls again, until the list is empty. So the
        list is emptied here: otherwise a receiver with many addresses would be tried many times.
        """
        try:
            return await super()._wrap_create_connection(
                *arguments, addr_infos=addr_infos, **options
            )
        except aiohttp.ClientConnectorError:
            addr_infos.clear()
            raise


def _checked_socket(guard: Guard, info: tuple[Any, ...]) -> socket.socket:
    """Make the socket for one address, right before aiohttp connects it.

    The resolver has checked the addresses of names. aiohttp does not resolve an address in a URL,
    so it is checked here.
    """
    family, kind, proto, _, (address, *_) = info
    guard.check(address, [address])
    return socket.socket(family, kind, proto)


async def _drain(body: aiohttp.StreamReader, drain_s: float) -> None:
    """Read the rest of the body, so that the connection can be kept.

    The status is known already. If the body is long, slow or broken, only the connection is lost.
    """

    async def read() -> None:
        bytes_left = MAX_DRAIN_BYTES
        while bytes_left > 0 and (chunk := await body.read(bytes_left)):
            bytes_left -= len(chunk)

    try:
        await asyncio.wait_for(read(), drain_s)
    except (asyncio.TimeoutError, aiohttp.ClientError, OSError):
        return


def _failure_text(error: Exception, deadline_s: float) -> str:
    """Return why there was no response."""
    if isinstance(error, asyncio.TimeoutError):
        return timed_out(deadline_s)
    if isinstance(error, aiohttp.ClientResponseError):
        return Failure.NOT_HTTP.text(error.message)
    for kind, failure in _FAILURES.items():
        if isinstance(error, kind):
            return failure.text(error)
    return system_error(error) or unexpected(error)
