"""The sender of the embedded engine: aiohttp, thousands of calls in flight on one event loop."""

from __future__ import annotations

import asyncio
import math
import os
import re
import ssl
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import aiohttp
from yarl import URL

from chalicelib.embedded.resolver import GuardedResolver
from chalicelib.guard import ForbiddenTarget, Guard
from chalicelib.ports import Call, Outcome

KEPT_BODY_BYTES = 65_536
"""How much of an answer's body is read, so that its connection can be used again."""

KEPT_BODY_S = 1.0
MAX_REASON_CHARACTERS = 200
KEEPALIVE_S = 15.0
_REASONS: dict[type[Exception], str] = {
    ForbiddenTarget: "{}",
    aiohttp.ClientConnectorDNSError: "host name not found",
    aiohttp.ServerDisconnectedError: "connection closed without an answer",
    aiohttp.ClientSSLError: "TLS failed: {}",
    ssl.SSLError: "TLS failed: {}",
}
_reused: ContextVar[bool] = ContextVar("reused", default=False)
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class AiohttpSender:
    """Sends each call as one empty POST. Made and closed on a running event loop.

    The deadline is wall clock, from the look-up of the name to the headers of the answer. No
    redirect is followed, no proxy of the environment is used, no cookie is kept. Only addresses
    that ``guard`` lets through are connected to.
    """

    def __init__(self, deadline_s: float, guard: Guard) -> None:
        self._deadline_s = deadline_s
        self._guard = guard
        self._resolver = GuardedResolver(guard)
        self._session = self._open(_Connector(self._resolver, keepalive_timeout=KEEPALIVE_S))
        self._fresh = self._open(_Connector(self._resolver, force_close=True))

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
            if not _reused.get():
                raise
        # The receiver had closed a kept-alive connection: not a failure of this attempt.
        return await self._post(self._fresh, call, max(deadline - clock(), 0.001))

    async def _post(self, session: aiohttp.ClientSession, call: Call, left_s: float) -> Outcome:
        _reused.set(False)
        url = URL(call.url, encoded=True)
        self._guard.check_literal(url.host or "")
        response = await session.post(
            url,
            headers=call.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=left_s, ceil_threshold=math.inf),
        )
        async with response:
            if not response.content.at_eof():
                await _read_rest(response.content)
        return Outcome(status=response.status, retry_after=_seconds(response))

    @staticmethod
    def _open(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type", "Accept", "Accept-Encoding", "User-Agent"),
            auto_decompress=False,
            trust_env=False,
        )


class _Connector(aiohttp.TCPConnector):
    """Notes whether the connection it gives was used before. (Tracing would, at twice the cost
    of a whole call.)
    """

    def __init__(self, resolver: GuardedResolver, **options: Any) -> None:
        super().__init__(limit=0, resolver=resolver, **options)
        self._used: WeakSet[object] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        connection = await super().connect(req, traces, timeout)
        _reused.set(connection.protocol in self._used)
        self._used.add(connection.protocol)
        return connection


async def _read_rest(body: aiohttp.StreamReader) -> None:
    """Read what follows the headers, so that the connection can be kept.

    The status has already decided: a body that is long, slow or broken only costs its connection.
    """

    async def read() -> None:
        left = KEPT_BODY_BYTES
        while left > 0 and (chunk := await body.read(left)):
            left -= len(chunk)

    try:
        await asyncio.wait_for(read(), KEPT_BODY_S)
    except (asyncio.TimeoutError, aiohttp.ClientError, OSError):
        return


def _seconds(response: aiohttp.ClientResponse) -> float | None:
    """Return what Retry-After asks for, where it is a number of seconds."""
    text = response.headers.get("Retry-After", "")
    return float(text) if _DELTA_SECONDS.fullmatch(text) else None


def _reason(error: Exception, deadline_s: float) -> str:
    """Say in words a person can act on why there was no answer."""
    if isinstance(error, asyncio.TimeoutError):
        return f"timed out after {deadline_s:g} s"
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason.format(error)
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
