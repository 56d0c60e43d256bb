"""The sender: one empty POST a call, over a kept connection where there is one."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failure import (
    NO_FILES,
    OWN_FAILURES,
    Failure,
    lacks_files,
    system_error,
    timed_out,
    unexpected,
)
from chalicelib.domain.response import MAX_DRAIN_S, parse_retry_after
from chalicelib.domain.response_head import ResponseHead
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.sender.connection import ClosedWithoutResponse, Connection
from chalicelib.embedded.sender.dialer import Dialer
from chalicelib.embedded.sender.pool import IdlePool
from chalicelib.embedded.sender.request import Origin, request_of
from chalicelib.embedded.sender.resolver import BUSY, GuardedResolver

log = logging.getLogger(__name__)

_PAUSES_WITHOUT_FILES_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""The pauses between a call's tries to get an open file. If all fail, no attempt is counted."""

_FAILURES: dict[type[Exception], Failure] = {
    **OWN_FAILURES,
    socket.gaierror: Failure.HOST_NOT_FOUND,
    UnicodeError: Failure.HOST_NOT_FOUND,
    ssl.SSLError: Failure.TLS_FAILED,
}


class HttpSender:
    """Sends each call as one empty POST. Made and closed on a running event loop.

    The deadline is wall clock, from the look-up of the name to the last header of the response.
    No redirect is followed, no proxy of the environment is used, no cookie is kept. Only addresses
    that ``guard`` allows are connected to.
    """

    def __init__(
        self,
        deadline_s: float,
        guard: Guard,
        *,
        drain_s: float = MAX_DRAIN_S,
        tenant_share: float = 1.0,
        tls: ssl.SSLContext | None = None,
        keep_responses: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``drain_s`` limits the time to skip a body; ``tls`` is by default the system's trust.

        ``tenant_share`` is the share of the look-ups at once that one tenant may have.
        With ``keep_responses``, outcomes have the beginning of a failed response's body.
        ``clock`` (epoch s) is what a Retry-After date is compared with.
        """
        self._clock = clock
        self._deadline_s = deadline_s
        self._drain_s = drain_s
        self._keep_responses = keep_responses
        self._tls = tls or _default_tls()
        self._loop = asyncio.get_running_loop()
        self._resolver = GuardedResolver(guard, deadline_s, tenant_share=tenant_share)
        self._dialer = Dialer(guard, self._resolver)
        self._idle = IdlePool()

    async def close(self) -> None:
        """Close every idle connection. A call on its way ends by its own deadline."""
        self._idle.close()
        await self._resolver.close()

    async def send(self, call: Call) -> Outcome:
        """Send the call and return its outcome, within the deadline.

        Raises ``Unavailable`` when this machine lacks what the call needs: that is no failed
        attempt.
        """
        deadline_s = call.deadline_s(self._deadline_s)
        try:
            head = await self._send(call, self._loop.time() + deadline_s)
            retry_after = parse_retry_after(head.retry_after, self._clock())
        except Unavailable:
            raise
        except Exception as error:
            text = _failure_text(error, deadline_s)
            if text is None:
                log.exception("a call failed in a way that the sender does not know")
            return Outcome(error=text or unexpected(error))
        return Outcome(
            status=head.status, retry_after=retry_after, again=head.again, response=head.excerpt
        )

    async def _send(self, call: Call, deadline: float) -> ResponseHead:
        origin, request = request_of(call)
        kept = self._idle.take(origin)
        if kept is not None:
            try:
                return await _exchange(kept, request, deadline)
            except ClosedWithoutResponse as error:
                if error.heard:
                    raise
                # The receiver closed the connection while it was idle. That is no failure of this
                # attempt: send once more, on a connection that is certainly new.
        connection = await self._connect(origin, call.tenant, deadline)
        return await _exchange(connection, request, deadline)

    async def _connect(self, origin: Origin, tenant: str, deadline: float) -> Connection:
        left_s = max(deadline - self._loop.time(), 0.0)
        try:
            return await asyncio.wait_for(self._open(origin, tenant), left_s)
        except asyncio.TimeoutError as error:
            # The receiver was never asked: this is no attempt.
            if self._resolver.is_waiting(origin.host, origin.port, tenant):
                raise Unavailable(BUSY) from error
            raise
        except OSError as error:
            if lacks_files(error):
                raise Unavailable(NO_FILES) from error
            raise

    async def _open(self, origin: Origin, tenant: str) -> Connection:
        opened = await self._dial(origin, tenant)
        make = partial(
            Connection,
            partial(self._idle.put, origin),
            self._idle.forget,
            drain_s=self._drain_s,
            keep_responses=self._keep_responses,
            tls=self._tls if origin.scheme == "https" else None,
            server_name=origin.host.removesuffix("."),  # RFC 6066, section 3
        )
        try:
            _, connection = await self._loop.create_connection(make, sock=opened)
        except BaseException:
            opened.close()
            raise
        try:
            await connection.established
        except BaseException:
            connection.close()
            raise
        return connection

    async def _dial(self, origin: Origin, tenant: str) -> socket.socket:
        """Return a connected socket, for which this may wait until an open file is free."""
        for pause_s in _PAUSES_WITHOUT_FILES_S:
            try:
                return await self._dialer.connect(origin.host, origin.port, tenant)
            except OSError as error:
                if not lacks_files(error):
                    raise
            # Idle connections hold files, and calls in flight give theirs back.
            self._idle.clear()
            await asyncio.sleep(pause_s)
        return await self._dialer.connect(origin.host, origin.port, tenant)


async def _exchange(connection: Connection, request: bytes, deadline: float) -> ResponseHead:
    """Send one request, and wait for its response. A call that is cancelled ends its connection."""
    try:
        return await connection.exchange(request, deadline)
    except asyncio.CancelledError:
        connection.close()
        raise


def _default_tls() -> ssl.SSLContext:
    """Return a context that trusts what the system trusts."""
    context = ssl.create_default_context()
    # A receiver of TLS 1.2 could make us negotiate again and again. TLS 1.3 has no renegotiation.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _failure_text(error: Exception, deadline_s: float) -> str | None:
    """Return why there was no response, in words of our own; None for an unknown error."""
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return timed_out(deadline_s)
    for kind, failure in _FAILURES.items():
        if isinstance(error, kind):
            return failure.text(error)
    if isinstance(error, ClosedWithoutResponse):
        return system_error(error.cause or error) or Failure.CLOSED_WITHOUT_RESPONSE.text()
    return system_error(error)
