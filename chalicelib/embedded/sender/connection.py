"""One connection to a receiver: one call at a time, and no bytes between two calls.

A response belongs to the call that asked for it. So a connection that receives bytes while no call
waits is closed: they would be taken for the response to the next call.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import cast

from chalicelib.domain.attempt_log import SUCCESS
from chalicelib.domain.response import MAX_RESPONSE_BYTES, ResponseTooLong
from chalicelib.domain.response_excerpt import Excerpt
from chalicelib.domain.response_head import HeadReader, ResponseHead
from chalicelib.embedded.sender.body import BodySkipper
from chalicelib.embedded.sender.tls import Tls

EXCERPT_S = 0.25
"""How long a failed response waits for the beginning of its body."""


class ClosedWithoutResponse(ConnectionError):
    """The connection ended before a status line. ``heard`` tells whether any byte had come."""

    def __init__(self, cause: Exception | None, *, heard: bool) -> None:
        super().__init__("closed without a response")
        self.cause = cause
        self.heard = heard


class Connection(asyncio.Protocol):
    """A connected socket, with TLS where the URL asks for it."""

    def __init__(
        self,
        on_free: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
        *,
        drain_s: float,
        keep_responses: bool = True,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """``on_free`` gets the connection each time it can be used for another call.

        ``on_lost`` gets it once, when it has ended. With ``keep_responses``, a failed response
        waits a moment for the beginning of its body.
        """
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._on_free = on_free
        self._on_lost = on_lost
        self._drain_s = drain_s
        self._keep_responses = keep_responses
        self._excerpt: Excerpt | None = None
        self._excerpt_timer: asyncio.TimerHandle | None = None
        self._tls_context = tls
        self._server_name = server_name
        self._tls: Tls | None = None
        self._transport: asyncio.Transport | None = None
        self._reader: HeadReader | None = None
        self._skipper: BodySkipper | None = None
        self._response: asyncio.Future[ResponseHead] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._left = MAX_RESPONSE_BYTES
        self._early = bytearray()
        """Bytes that came before the first request: an overloaded receiver may refuse at once."""
        self._asked = False
        self._heard = False
        self._failure: Exception | None = None
        self._fd = -1

    @property
    def usable(self) -> bool:
        """Whether another call may go out: the connection is open, and nothing has come on it."""
        if self._transport is None or self._transport.is_closing():
            return False
        # The loop may not have read yet what a receiver has sent, or that it has closed.
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def exchange(self, request: bytes, deadline: float) -> asyncio.Future[ResponseHead]:
        """Send one request; return its response to come, at the latest at loop time ``deadline``.

        The future raises ``TimeoutError``, ``ClosedWithoutResponse``, ``NotHttp``,
        ``ResponseTooLong`` and ``ssl.SSLError``.
        """
        self._response = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            # A receiver may close a new connection before it is asked.
            self._response.set_exception(self._failure or ClosedWithoutResponse(None, heard=False))
            return self._response
        self._reader, self._skipper, self._excerpt = HeadReader(), None, None
        self._left = MAX_RESPONSE_BYTES
        self._timer = self._loop.call_at(deadline, self._time_out)
        self._asked, self._heard = True, False
        early, self._early = bytes(self._early), bytearray()
        response = self._response
        self._guarded(lambda: self._send(request))
        if early:
            self._guarded(lambda: self._read(early))
        return response

    def close(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with the handshake if there is TLS."""
        self._transport = cast("asyncio.Transport", transport)
        self._fd = self._transport.get_extra_info("socket").fileno()
        context = self._tls_context
        if context is None:
            self.established.set_result(None)
        else:
            self._guarded(lambda: self._start_tls(context))

    def data_received(self, data: bytes) -> None:
        """Count and read what came."""
        self._left -= len(data)
        if self._left < 0:
            self._fail(ResponseTooLong())
            return
        if self._tls is None:
            self._guarded(lambda: self._read(data))
        else:
            tls = self._tls
            self._guarded(lambda: self._decrypt(tls, data))

    def eof_received(self) -> bool:
        """Let the transport close: a receiver that has closed its side gets no more calls."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the call: with its status if that has come, otherwise with an error."""
        self._transport = None
        self._fail(ClosedWithoutResponse(exc, heard=self._heard))
        self._on_lost(self)

    def _start_tls(self, context: ssl.SSLContext) -> None:
        assert self._transport is not None
        self._tls = Tls(context, self._server_name, self._transport.write)
        self._tls.start()

    def _send(self, request: bytes) -> None:
        assert self._transport is not None
        if self._tls is not None:
            self._tls.send(request)
        else:
            self._transport.write(request)

    # Reading

    def _decrypt(self, tls: Tls, data: bytes) -> None:
        plain, ended = tls.receive(data)
        if tls.established and not self.established.done():
            self.established.set_result(None)
            self._left = MAX_RESPONSE_BYTES
        if plain:
            self._read(plain)
        if ended:
            self.close()

    def _read(self, data: bytes) -> None:
        if self._reader is None:
            if self._asked:
                self.close()  # nobody waits: it would be taken for the response to the next call
            else:
                self._early += data
            return
        self._heard = True
        if self._skipper is None:
            data = self._reader.feed(data)
            if not self._reader.complete or self._reader.head is None:
                return
            self._skipper = BodySkipper(self._reader.head)
            self._begin_excerpt(self._reader.head)
        self._skipper.feed(data)
        if self._excerpt is not None:
            self._excerpt.feed(data)
        self._decide()

    def _begin_excerpt(self, head: ResponseHead) -> None:
        """Keep the beginning of a failed response's body, as far as that comes soon."""
        if self._keep_responses and head.status not in SUCCESS:
            self._excerpt = Excerpt(head)
            self._excerpt_timer = self._loop.call_later(EXCERPT_S, self._end_excerpt)

    def _end_excerpt(self) -> None:
        """Take what has come of the excerpt, and go on."""
        if self._excerpt is not None:
            self._excerpt.done = True
        self._decide()

    def _decide(self) -> None:
        """Give the call its response, once the head is read; then see to the rest of the body."""
        reader, response = self._reader, self._response
        if reader is None or response is None or reader.head is None or not reader.complete:
            return
        if not response.done():
            if self._excerpt is not None:
                if not (self._excerpt.done or self._is_over()):
                    return  # until more of the body comes, or its time is over
                reader.head.excerpt = self._excerpt.text()
            self._stop_timer()
            response.set_result(reader.head)
            self._timer = self._loop.call_later(self._drain_s, self.close)
        if self._skipper is not None and self._skipper.ended:
            self._finish(self._skipper)

    def _is_over(self) -> bool:
        """Whether no more of the body can come."""
        skipper = self._skipper
        return self._transport is None or (skipper is not None and skipper.clean)

    def _finish(self, skipper: BodySkipper) -> None:
        self._stop_timer()
        self._reader = self._skipper = self._response = None
        if not skipper.clean:
            self.close()
            return
        self._on_free(self)

    def _time_out(self) -> None:
        """End the call at its deadline."""
        self._fail(TimeoutError())

    # Failing

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (ResponseTooLong, ValueError, OSError) as error:  # ssl.SSLError is an OSError
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Close the connection. Its call gets its status if that has come, otherwise ``error``."""
        if self._reader is not None:
            self._reader.end()
            self._end_excerpt()
        self._failure = self._failure or error
        self._stop_timer()
        if not self.established.done():
            self.established.set_exception(error)
            self.established.exception()  # retrieved: the call may have been given up
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)
            self._response.exception()
        self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._excerpt_timer is not None:
            self._excerpt_timer.cancel()
            self._excerpt_timer = None
