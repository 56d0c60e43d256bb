"""The sender of the AWS engine: ``requests``, one thread a call.

``requests`` counts a timeout from one read to the next, writes URLs anew, and hides its sockets;
the connections here are its own, so that the deadline is wall clock and the URL goes out as
prepared.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from http.cookiejar import Cookie, CookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.poolmanager import PoolManager

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.response import (
    MAX_DRAIN_BYTES,
    MAX_DRAIN_S,
    MAX_REASON_CHARACTERS,
    MAX_RESPONSE_BYTES,
    ResponseTooLong,
    retry_after,
)
from chalicelib.domain.ssrf_guard import MAX_ADDRESSES, ForbiddenTarget, Guard
from chalicelib.domain.webhook import Call, Outcome

POOL_SIZE = 16
"""Connections to one receiver that are kept."""


class _Line:
    """One call while it is on the wire: its end, its socket, and what is known of its outcome.

    One thread sends; the one that waits for it may cut the line at any moment.
    """

    def __init__(self, guard: Guard, deadline_s: float) -> None:
        self.guard = guard
        self.deadline_s = deadline_s
        self.target = ""
        self.reused = False
        self.heard = False
        self._outcome: Outcome | None = None
        self.decided = threading.Event()
        self._ends = time.monotonic() + deadline_s
        self._handle: socket.socket | None = None
        self._cut = False
        self._lock = threading.Lock()

    def left_s(self) -> float:
        """Return how many seconds of the call's time are left; ``TimeoutError`` if none are."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def hold(self, connection: socket.socket) -> None:
        """Note what the call goes out on; raise ``TimeoutError`` if it has been cut.

        Noted is a handle of the line's own: what shuts down an ``SSLSocket`` ends its encryption
        first, while the other thread may be sending.
        """
        with self._lock:
            if self._cut:
                raise TimeoutError
            self._release()
            fd, family, kind = connection.fileno(), connection.family, connection.type
            self._handle = socket.fromfd(fd, family, kind)

    def decide(self, outcome: Outcome) -> Outcome:
        """Note what came of the call unless that is known already; return what is known."""
        with self._lock:
            self._outcome = self._outcome or outcome
        self.decided.set()
        return self._outcome

    def end(self) -> None:
        """Let go of the connection: it may be kept for others."""
        with self._lock:
            self._release()

    def cut(self) -> None:
        """End the call now, wherever it is."""
        with self._lock:
            self._cut = True
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


_line: contextvars.ContextVar[_Line] = contextvars.ContextVar("line")


class _TooLong(ResponseTooLong, HTTPException):
    """Known to ``http.client``'s callers as a broken answer."""


class _Ear(io.RawIOBase):
    """Reads the bytes of one answer, only so many, and tells the line that there are some."""

    def __init__(self, raw: io.RawIOBase, line: _Line) -> None:
        self._raw = raw
        self._line = line
        self._left = MAX_RESPONSE_BYTES
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._left -= count
        if self._left < 0:
            raise _TooLong
        if not count and self._line.heard and self.in_head:
            raise HTTPException("closed in the middle of its headers")
        self._line.heard = self._line.heard or count > 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer that comes after all interim ones, with headers that are complete.

    ``http.client`` passes over 100 alone, and takes headers that break off for all there are.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ear = _Ear(self.fp.detach(), _line.get())
        self.fp = io.BufferedReader(self._ear)

    def begin(self, *arguments: Any, **options: Any) -> None:
        super().begin(*arguments, **options)
        while HTTPStatus.SWITCHING_PROTOCOLS < self.status < HTTPStatus.OK:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin(*arguments, **options)
        self._ear.in_head = False


class _Sending:
    """Mixed into urllib3's connections: sends the prepared target, and tells the line of it."""

    calls = 0

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> None:
        line = _line.get()
        line.reused = self.calls > 0 and self.sock is not None  # type: ignore[attr-defined]
        self.calls += 1
        if self.sock is None:  # type: ignore[attr-defined]
            self.connect()  # type: ignore[attr-defined]
        line.hold(self.sock)  # type: ignore[attr-defined]
        super().request(method, line.target, *arguments, **options)  # type: ignore[misc]

    def _new_conn(self) -> socket.socket:
        """Resolve the name once, have every address checked, connect to one of those."""
        host, port = self._dns_host, self.port  # type: ignore[attr-defined]
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            failure = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(host, self, failure) from error  # type: ignore[arg-type]
        _line.get().guard.check(host, [str(address[0]) for *_, address in found])
        try:
            return _connect(found[:MAX_ADDRESSES], _line.get())
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]


class _HTTPConnection(_Sending, HTTPConnection):
    response_class = _Answer


class _HTTPSConnection(_Sending, HTTPSConnection):
    response_class = _Answer


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _connect(found: Sequence[Any], line: _Line) -> socket.socket:
    """Connect to the first of the resolved addresses that answers."""
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for family, kind, proto, _, address in found:
        connection = socket.socket(family, kind, proto)
        try:
            connection.settimeout(line.left_s())
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


class _Adapter(HTTPAdapter):
    """The adapter of ``requests`` on the connections above."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


class RequestsSender:
    """Sends each call as one empty POST. Safe to use from many threads.

    The deadline is wall clock, from the look-up of the name to the headers of the answer. No
    redirect is followed, no proxy or password of the environment is used, no cookie is kept. Only
    addresses that ``guard`` lets through are connected to.

    Each call has a thread of its own, never one of a pool: nothing can cut short a look-up that
    the system's resolver does not answer, and a few of those would hold every thread there is.
    """

    def __init__(self, deadline_s: float, guard: Guard) -> None:
        self._deadline_s = deadline_s
        self._guard = guard
        self._session = _session()

    def close(self) -> None:
        """Close every connection that is kept; a call on its way ends by its own deadline."""
        self._session.close()

    def send(self, call: Call) -> Outcome:
        """Send an empty POST and return what came of it within the deadline.

        Raises ``Unavailable`` when the call could not even begin: that is no failed attempt.
        """
        line = _Line(self._guard, call.deadline_s(self._deadline_s))
        sending = threading.Thread(target=self._send, args=(call, line), name="send", daemon=True)
        try:
            sending.start()
        except RuntimeError as error:
            raise Unavailable("The system gives this process no more threads.") from error
        if line.decided.wait(line.deadline_s):
            with contextlib.suppress(TimeoutError):
                sending.join(min(MAX_DRAIN_S, line.left_s()))
        outcome = line.decide(Outcome(error=_timed_out(line.deadline_s)))
        line.cut()
        return outcome

    def _send(self, call: Call, line: _Line) -> None:
        _line.set(line)
        try:
            self._exchange(call, line)
        except Exception as error:  # noqa: BLE001 - whatever a receiver does is an outcome
            line.decide(Outcome(error=_reason(error, line.deadline_s)))
        finally:
            line.end()

    def _exchange(self, call: Call, line: _Line) -> None:
        try:
            _post(self._session, call, line)
        except requests.ConnectionError as error:
            if line.heard or not (line.reused and _unanswered(error)):
                raise
        else:
            return
        # The receiver had closed a kept-alive connection: not a failure of this attempt.
        with _session() as fresh:
            _post(fresh, call, line)


def _post(session: requests.Session, call: Call, line: _Line) -> None:
    parts = urlsplit(call.url)
    line.target = parts.path + (f"?{parts.query}" if parts.query else "")
    response = session.post(
        call.url, headers=call.headers, timeout=line.left_s(), allow_redirects=False, stream=True
    )
    asked = retry_after(response.headers.get("Retry-After", ""))
    line.decide(Outcome(status=response.status_code, retry_after=asked))
    with response:
        _read_rest(response)


class _NoCookies(CookiePolicy):
    """Neither keeps nor sends cookies."""

    netscape = True
    rfc2965 = hide_cookie2 = False

    def set_ok(self, cookie: Cookie, request: object) -> bool:
        return False

    def return_ok(self, cookie: Cookie, request: object) -> bool:
        return False

    def domain_return_ok(self, domain: str, request: object) -> bool:
        return False

    def path_return_ok(self, path: str, request: object) -> bool:
        return False


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    session.cookies.set_policy(_NoCookies())
    session.mount("http://", _Adapter(pool_maxsize=POOL_SIZE))
    session.mount("https://", _Adapter(pool_maxsize=POOL_SIZE))
    return session


def _read_rest(response: requests.Response) -> None:
    """Read what follows the headers, so that the connection can be kept.

    The status has already decided: a body that is long, slow or broken only costs its connection.
    """
    left = MAX_DRAIN_BYTES
    with contextlib.suppress(HTTPError, OSError):
        while left > 0:
            chunk = response.raw.read1(left)
            if not chunk:
                response.raw.release_conn()
                return
            left -= len(chunk)


def _unanswered(error: BaseException) -> bool:
    """Tell whether a connection ended before its answer did."""
    return any(isinstance(cause, ProtocolError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything it wraps, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        wrapped = (getattr(cause, "reason", None), *cause.args, cause.__cause__)
        cause = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)


def _timed_out(deadline_s: float) -> str:
    return f"timed out after {deadline_s:g} s"


def _reason(error: BaseException, deadline_s: float) -> str:
    """Say in words a person can act on why there was no answer."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, (TimeoutError, requests.Timeout)):
            return _timed_out(deadline_s)
        if isinstance(cause, (ForbiddenTarget, ResponseTooLong)):
            return str(cause)
        if isinstance(cause, NameResolutionError):
            return "host name not found"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {causes[-1]}"[:MAX_REASON_CHARACTERS]
    return _broken(causes)


def _broken(causes: Sequence[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return os.strerror(cause.errno).lower()
        if isinstance(cause, HTTPException) and not isinstance(cause, RemoteDisconnected):
            return f"not an HTTP answer: {cause}"[:MAX_REASON_CHARACTERS]
    if _unanswered(causes[0]):
        return "connection closed without an answer"
    return f"{type(causes[0]).__name__}: {causes[0]}"[:MAX_REASON_CHARACTERS]
