"""One connection of a client: HTTP/1.1 on an event loop (RFC 9112).

The requests of a connection are carried out one after another. No thread and no task waits for a
client; a connection that is idle costs only its memory.
"""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from chalicelib.domain.errors import RequestTimeout, Unavailable
from chalicelib.rest.reading import too_large
from local.connections import Connections
from local.gateway import response_to
from local.http_body import Body, BodyTooLong, ChunkedBody, LengthBody
from local.http_head import END, MAX_HEAD_BYTES, BadRequest, Head, check_beginning, read_head
from local.http_message import HttpRequest, HttpResponse
from local.http_response import CONTINUE, encode, refusal

MAX_AHEAD_BYTES = 65_536
"""Bytes of further requests that are kept while one is in hand. Then no more are read."""

MAX_BACKLOG_BYTES = 16_384
"""Bytes of responses that may wait to be sent before the next request is carried out."""

MAX_UNCOUNTED_BYTES = 16_384
"""A body that came whole and is no longer takes no part of the room for bodies."""

MAX_LINGER_BYTES = 1_048_576
"""Bytes of a refused request that are read and thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a client may take, in seconds."""

    head_s: float = 10.0
    """For the request line and the headers, from the first byte on."""

    prompt_body_s: float = 0.1
    """A body that takes longer is waited for only if the caller has a valid key."""

    body_s: float = 10.0
    """For the whole body."""

    linger_s: float = 2.0
    """For the rest of a request that was refused before its end.

    Closing at once would make the system discard the response (RFC 9112, 9.6).
    """


class Application(Protocol):
    """Responds to requests. Each ``done`` is called on the event loop, maybe at once."""

    def reads_body(self, request: HttpRequest) -> bool:
        """Tell whether the body of a request is read."""

    def max_body_bytes(self, request: HttpRequest) -> int:
        """Return how long the body of a request may be, even where none is read."""

    def admit(self, request: HttpRequest, done: Callable[[bool], None]) -> None:
        """Tell ``done`` whether the caller may make this request."""

    def carry_out(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        """Carry a request out and pass the response to ``done``."""


class _State(enum.Enum):
    """What the connection does with the bytes that come next."""

    HEAD = enum.auto()  # they are a request
    BODY = enum.auto()  # they are the body of a request
    IN_HAND = enum.auto()  # they wait: a request is being carried out
    LINGERING = enum.auto()  # they are thrown away: the last response is sent
    CLOSED = enum.auto()


class Connection(asyncio.Protocol):
    """Reads requests, passes them to the application, and sends the responses."""

    __slots__ = (
        "_application",
        "_body",
        "_client",
        "_connections",
        "_eof",
        "_head",
        "_keep_alive",
        "_loop",
        "_paused",
        "_received",
        "_scheduled",
        "_state",
        "_thrown_away",
        "_timeouts",
        "_timer",
        "_transport",
        "_unread",
        "_write_blocked",
    )

    def __init__(
        self,
        application: Application,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
    ) -> None:
        self._application = application
        self._connections = connections
        self._loop = loop
        self._timeouts = timeouts
        self._state = _State.HEAD
        self._received = b""
        self._head: Head | None = None
        self._body: Body | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive = False
        # Whether bytes of a request may still come that nobody reads. Then the connection ends.
        self._unread = False
        self._thrown_away = 0
        # Whether the client has closed its sending half. It may still read responses.
        self._eof = False
        # Whether reading is paused, and whether writing is, until the client reads.
        self._paused = False
        self._write_blocked = False
        # Whether the bytes that were received are looked at in the next turn of the event loop.
        self._scheduled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse the connection if there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MAX_BACKLOG_BYTES, low=0)
        peer = transport.get_extra_info("peername")
        self._client: str = peer[0] if isinstance(peer, tuple) else ""
        if not self._connections.add(self):
            self._send(response_to(Unavailable("There are too many connections.")))
            self._close()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._state is _State.LINGERING:
            self._throw_away(len(data))
            return
        self._received = self._received + data if self._received else data
        if self._may_advance:
            self._advance()
        elif len(self._received) >= MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Take note that nothing more comes; return whether there are responses to send."""
        self._eof = True
        return self._state is not _State.LINGERING and not self._may_advance

    def pause_writing(self) -> None:
        """Carry out no further request until the client reads its responses."""
        self._write_blocked = True
        self._connections.unsent(self)

    def resume_writing(self) -> None:
        """Go on: the client has read its responses."""
        self._write_blocked = False
        self._connections.sent(self)
        if self._state in (_State.HEAD, _State.BODY):
            self._advance_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. A request in hand is carried out all the same."""
        self._state = _State.CLOSED
        self._stop_timer()
        self._connections.remove(self)
        self._received, self._body = b"", None

    @property
    def unsent_bytes(self) -> int:
        """The bytes of responses that wait to be sent."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close at once. What is unsent is lost."""
        self._transport.abort()

    def stop(self) -> None:
        """Close now if no request has begun. Otherwise its response is the last one."""
        if self._state is _State.HEAD and not self._received:
            self._close()

    @property
    def _may_advance(self) -> bool:
        """Whether the bytes that come next are looked at as they come."""
        return (
            self._state in (_State.HEAD, _State.BODY)
            and not self._write_blocked
            and not self._scheduled
        )

    def _advance_soon(self) -> None:
        # In the next turn, so that a client with many requests in one packet delays nobody.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._scheduled = False
        if self._may_advance:
            self._advance()

    def _advance(self) -> None:
        """Go as far as the bytes allow that were received."""
        try:
            if self._state is _State.HEAD:
                self._read_head()
            else:
                self._read_body()
        except BadRequest as error:
            self._refuse(refusal(error))

    def _read_head(self) -> None:
        """Read the head of a request. Raises ``BadRequest``."""
        received = self._received
        if received[:1] in (b"\r", b"\n"):
            received = received.lstrip(b"\r\n")  # RFC 9112, 2.2
        end = received.find(END, 0, MAX_HEAD_BYTES)
        if end < 0:
            self._received = received
            if received:
                check_beginning(received)
                self._start_timer(self._timeouts.head_s, self._head_timed_out)
            self._need_more()
            return
        self._stop_timer()
        end += len(END)
        self._received = received[end:]
        head = self._head = read_head(received[:end], self._client)
        self._keep_alive = head.keep_alive
        if head.length == 0:
            self._carry_out(head, b"")
        else:
            self._begin_body(head)

    def _begin_body(self, head: Head) -> None:
        """Decide whether to read the body of a request, and begin. Raises ``BadRequest``."""
        length, limit = head.length, self._application.max_body_bytes(head.request)
        if length is not None and length > limit:
            self._skip_body(head, too_long=True)
        elif not self._application.reads_body(head.request):
            self._skip_body(head)
        else:
            self._body = ChunkedBody(limit) if length is None else LengthBody(length)
            self._state = _State.BODY
            self._read_body()

    def _skip_body(self, head: Head, *, too_long: bool = False) -> None:
        """Carry a request out without its body, or what came of it."""
        begun = self._body is not None
        if begun or head.length is None or head.length > len(self._received):
            self._unread = True
        else:
            self._received = self._received[head.length :]
        if too_long:
            head.request.fault = too_large(self._application.max_body_bytes(head.request))
        self._carry_out(head, b"")

    def _read_body(self) -> None:
        """Read what came of the body. Raises ``BadRequest``."""
        body, head, received = self._body, self._head, self._received
        if body is None or head is None:
            return
        try:
            rest = body.feed(received)
        except BodyTooLong:
            self._skip_body(head, too_long=True)
            return
        complete = rest is not None
        self._received = rest or b""
        # A short body that is complete is soon carried out; a long one may wait for a thread.
        counts = not complete or len(received) > MAX_UNCOUNTED_BYTES
        if counts and not self._connections.received(self, len(received) - len(self._received)):
            head.request.fault = Unavailable("Too many bodies are being received; try again.")
            self._unread = self._unread or not complete
            self._carry_out(head, b"")
            return
        if complete:
            self._carry_out(head, body.content())
            return
        self._need_more()
        if self._timer is None and self._state is _State.BODY:
            if head.expects_continue and not received:
                self._ask_for_body()
            else:
                self._start_timer(self._timeouts.prompt_body_s, self._ask_for_body)

    def _ask_for_body(self) -> None:
        """Wait for the body, if its caller is admitted."""
        self._timer = None
        if self._head is not None:
            self._start_timer(self._timeouts.body_s, self._body_timed_out)
            done = functools.partial(self._admitted, self._head)
            self._application.admit(self._head.request, done)

    def _admitted(self, head: Head, admitted: bool) -> None:  # noqa: FBT001 - a callback
        if self._state is not _State.BODY or self._head is not head:
            return  # the body came meanwhile, or the client has gone
        if not admitted:
            self._skip_body(head)
        elif head.expects_continue:
            self._transport.write(CONTINUE)

    def _carry_out(self, head: Head, body: bytes) -> None:
        self._stop_timer()
        self._body = None
        self._state = _State.IN_HAND
        self._connections.busy(self)
        head.request.body = body
        self._application.carry_out(head.request, self._respond)

    def _respond(self, response: HttpResponse) -> None:
        """Send the response to the request in hand."""
        if self._state is not _State.IN_HAND:
            return  # the client has gone
        if self._unread or self._connections.stopping:
            self._keep_alive = False
        self._send(response)
        if not self._keep_alive:
            self._finish()
            return
        self._state = _State.HEAD
        self._head = None
        self._connections.forget_body(self)
        self._connections.waits(self)
        if self._received:
            self._advance_soon()
        else:
            self._need_more()

    def _send(self, response: HttpResponse) -> None:
        size = len(response.body)
        if size > MAX_BACKLOG_BYTES and not self._connections.has_room(size):
            response = response_to(
                Unavailable("Too many responses wait to be read by their clients.")
            )
        is_http_1_0 = self._head is not None and self._head.is_http_1_0
        self._transport.write(
            encode(response, keep_alive=self._keep_alive, is_http_1_0=is_http_1_0)
        )

    def _refuse(self, response: HttpResponse) -> None:
        """Respond to bytes that are no request, or not in time, and close."""
        self._keep_alive = False
        self._unread = True
        self._send(response)
        self._finish()

    def _finish(self) -> None:
        """Close once the response is sent. First read what the client may still be sending."""
        self._stop_timer()
        self._received, self._body = b"", None
        if not self._unread or self._eof:
            self._close()
            return
        self._state = _State.LINGERING
        self._connections.unsent(self)
        self._transport.write_eof()
        self._resume_reading()
        self._start_timer(self._timeouts.linger_s, self._close)

    def _throw_away(self, count: int) -> None:
        self._thrown_away += count
        if self._thrown_away > MAX_LINGER_BYTES:
            self._transport.abort()

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._stop_timer()
        # Until all is sent, the client must go on reading.
        self._connections.unsent(self)
        self._transport.close()

    def _need_more(self) -> None:
        """Read on. At the end of what the client sends, close."""
        if self._eof:
            self._close()
        else:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _head_timed_out(self) -> None:
        self._timer = None
        limit_s = self._timeouts.head_s
        self._refuse(response_to(RequestTimeout(f"The headers did not come within {limit_s:g} s.")))

    def _body_timed_out(self) -> None:
        self._timer = None
        error = RequestTimeout(
            f"The body did not come within {self._timeouts.body_s:g} s. Nothing was changed."
        )
        self._refuse(response_to(error))

    def _start_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(delay_s, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
