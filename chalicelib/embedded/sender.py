"""The sender of the embedded engine: aiohttp, thousands of calls in flight on one event loop."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import socket
import ssl
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from chalicelib.domain.response import (
    MAX_DRAIN_BYTES,
    MAX_DRAIN_S,
    MAX_REASON_CHARACTERS,
    MAX_RESPONSE_BYTES,
    ResponseTooLong,
    retry_after,
)
from chalicelib.domain.ssrf_guard import ForbiddenTarget, Guard
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.resolver import GuardedResolver

KEEPALIVE_S = 15.0
_REASONS: dict[type[Exception], str] = {
    ForbiddenTarget: "{}",
    ResponseTooLong: "{}",
    aiohttp.ClientResponseError: "not an HTTP answer: {0.message}",
    aiohttp.ClientConnectorDNSError: "host name not found",
    aiohttp.ServerDisconnectedError: "connection closed without an answer",
    aiohttp.ClientSSLError: "TLS failed: {}",
    ssl.SSLError: "TLS failed: {}",
}


class AiohttpSender:
    """Sends each call as one empty POST. Made and closed on a running event loop.

    The deadline is wall clock, from the look-up of the name to the headers of the answer. No
    redirect is followed, no proxy of the environment is used, no cookie is kept. Only addresses
    that ``guard`` lets through are connected to.
    """

    def __init__(self, deadline_s: float, guard: Guard) -> None:
        self._deadline_s = deadline_s
        self._resolver = GuardedResolver(guard, deadline_s)
        connector = functools.partial(_Connector, guard, self._resolver)
        self._session = self._open(connector(keepalive_timeout=KEEPALIVE_S))
        self._fresh = self._open(connector(force_close=True))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._fresh.close()
        await self._resolver.close()

    async def send(self, call: Call) -> Outcome:
        """Send an empty POST and return what came of it within the deadline."""
        try:
            return await self._send(call)
        except Exception as error:  # noqa: BLE001 - whatever a receiver does is an outcome
            return Outcome(error=_reason(error, call.deadline_s(self._deadline_s)))

    async def _send(self, call: Call) -> Outcome:
        clock = asyncio.get_running_loop().time
        deadline_s = call.deadline_s(self._deadline_s)
        deadline = clock() + deadline_s
        try:
            return await self._post(self._session, call, deadline_s)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            used = _protocol.get()
            if used is None or not used.reused or used.heard:
                raise
        # The receiver had closed a kept-alive connection: not a failure of this attempt.
        return await self._post(self._fresh, call, max(deadline - clock(), 0.001))

    async def _post(self, session: aiohttp.ClientSession, call: Call, left_s: float) -> Outcome:
        _protocol.set(None)
        response = await session.post(
            URL(call.url, encoded=True),
            headers=call.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=left_s, ceil_threshold=math.inf),
        )
        async with response:
            if not response.content.at_eof():
                await _read_rest(response.content)
        asked = retry_after(response.headers.get("Retry-After", ""))
        return Outcome(status=response.status, retry_after=asked)

    @staticmethod
    def _open(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type", "Accept", "Accept-Encoding", "User-Agent"),
            auto_decompress=False,
            trust_env=False,
        )


class _Protocol(ResponseHandler):
    """Tells whether an answer has begun on its connection, and takes in only so much of one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.reused = False
        self._used = False
        self._left = MAX_RESPONSE_BYTES

    @property
    def heard(self) -> bool:
        """Whether the receiver has sent anything since the last request."""
        return self._left < MAX_RESPONSE_BYTES

    def expect(self) -> None:
        """Get ready for the answer to a request that is about to be sent."""
        self.reused, self._used = self._used, True
        self._left = MAX_RESPONSE_BYTES

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            super().data_received(data)
            return
        super().data_received(data[: self._left])
        self.set_exception(ResponseTooLong())
        if self.transport is not None:
            self.transport.abort()


_protocol: ContextVar[_Protocol | None] = ContextVar("protocol", default=None)


class _Connector(aiohttp.TCPConnector):
    """Opens connections to checked addresses only, and notes which one a call goes out on.

    (Tracing would tell too, at twice the cost of a whole call.)
    """

    def __init__(self, guard: Guard, resolver: GuardedResolver, **options: Any) -> None:
        make_socket = functools.partial(_checked_socket, guard)
        super().__init__(limit=0, resolver=resolver, socket_factory=make_socket, **options)
        self._factory = functools.partial(_Protocol, self._loop)  # type: ignore[assignment]

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        connection = await super().connect(req, traces, timeout)
        if isinstance(connection.protocol, _Protocol):
            connection.protocol.expect()
            _protocol.set(connection.protocol)
        return connection

    async def _wrap_create_connection(
        self, *arguments: Any, addr_infos: list[Any], **options: Any
    ) -> Any:
        """Try each address once: aiohttp goes on to try all but the first again, and so on."""
        try:
            return await super()._wrap_create_connection(
                *arguments, addr_infos=addr_infos, **options
            )
        except aiohttp.ClientConnectorError:
            addr_infos.clear()
            raise


def _checked_socket(guard: Guard, info: tuple[Any, ...]) -> socket.socket:
    """Make the socket for one address, the last thing before it is connected to.

    The resolver has checked what names stand for; of addresses in a URL it hears nothing.
    """
    family, kind, proto, _, (address, *_) = info
    guard.check(address, [address])
    return socket.socket(family, kind, proto)


async def _read_rest(body: aiohttp.StreamReader) -> None:
    """Read what follows the headers, so that the connection can be kept.

    The status has already decided: a body that is long, slow or broken only costs its connection.
    """

    async def read() -> None:
        left = MAX_DRAIN_BYTES
        while left > 0 and (chunk := await body.read(left)):
            left -= len(chunk)

    try:
        await asyncio.wait_for(read(), MAX_DRAIN_S)
    except (asyncio.TimeoutError, aiohttp.ClientError, OSError):
        return


def _reason(error: Exception, deadline_s: float) -> str:
    """Say in words a person can act on why there was no answer."""
    if isinstance(error, asyncio.TimeoutError):
        return f"timed out after {deadline_s:g} s"
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason.format(error)[:MAX_REASON_CHARACTERS]
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
