"""The sender of the AWS engine: ``requests``, one thread a call.

``requests`` counts a timeout from one read to the next, writes URLs anew, and hides its sockets;
the connections here are its own, so that the deadline is wall clock and the URL goes out as
prepared.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as DeadlinePassed
from http.cookiejar import Cookie, CookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.poolmanager import PoolManager

from chalicelib.guard import ForbiddenTarget, Guard
from chalicelib.ports import Call, Outcome

KEPT_BODY_BYTES = 65_536
"""How much of an answer's body is read, so that its connection can be used again."""

KEPT_BODY_S = 1.0
MAX_REASON_CHARACTERS = 200
POOL_SIZE = 16
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class _Line:
    """One call while it is on the wire: what is sent, and the socket it is sent on."""

    def __init__(self, call: Call, guard: Guard, deadline_s: float) -> None:
        self.guard = guard
        self.deadline_s = deadline_s
        parts = urlsplit(call.url)
        self.target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.reused = False
        self.outcome: Outcome | None = None
        self._socket: socket.socket | None = None
        self._cut = False
        self._lock = threading.Lock()

    def opened(self, connection: HTTPConnection, *, reused: bool) -> None:
        """Note the connection the call goes out on."""
        self.reused = reused
        with self._lock:
            self._socket = connection.sock
            if self._cut:
                self._close()

    def cut(self) -> None:
        """End the call now, wherever it is."""
        with self._lock:
            self._cut = True
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


_line: contextvars.ContextVar[_Line] = contextvars.ContextVar("line")


class _Sending:
    """Mixed into urllib3's connections: sends the prepared target, and tells the line of it."""

    calls = 0

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> None:
        line = _line.get()
        reused = self.calls > 0 and self.sock is not None  # type: ignore[attr-defined]
        self.calls += 1
        if self.sock is None:  # type: ignore[attr-defined]
            self.connect()  # type: ignore[attr-defined]
        line.opened(self, reused=reused)  # type: ignore[arg-type]
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
            return _connect(found, self.timeout)  # type: ignore[attr-defined]
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]


class _HTTPConnection(_Sending, HTTPConnection):
    pass


class _HTTPSConnection(_Sending, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _connect(found: Sequence[Any], timeout: float) -> socket.socket:
    """Connect to the first of the resolved addresses that answers."""
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for family, kind, proto, _, address in found:
        connection = socket.socket(family, kind, proto)
        try:
            connection.settimeout(timeout)
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
    """

    def __init__(self, deadline_s: float, guard: Guard, threads: int = POOL_SIZE) -> None:
        self._deadline_s = deadline_s
        self._guard = guard
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="send")
        self._session = _session()

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def send(self, call: Call) -> Outcome:
        """Send an empty POST and return what came of it within the deadline."""
        line = _Line(call, self._guard, call.deadline_s(self._deadline_s))
        sending: Future[Outcome] = self._threads.submit(self._send, call, line)
        try:
            return sending.result(line.deadline_s)
        except (DeadlinePassed, requests.Timeout):
            # Read before the cut: http.client takes headers that it cuts off for complete ones.
            outcome = line.outcome
            sending.cancel()
            line.cut()
            return outcome or Outcome(error=f"timed out after {line.deadline_s:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a receiver does is an outcome
            return Outcome(error=_reason(error))

    def _send(self, call: Call, line: _Line) -> Outcome:
        _line.set(line)
        try:
            return self._post(call, line, self._session)
        except requests.ConnectionError as error:
            if not (line.reused and _unanswered(error)):
                raise
        # The receiver had closed a kept-alive connection: not a failure of this attempt.
        with _session() as fresh:
            return self._post(call, line, fresh)

    def _post(self, call: Call, line: _Line, session: requests.Session) -> Outcome:
        response = session.post(
            call.url,
            headers=call.headers,
            timeout=line.deadline_s,
            allow_redirects=False,
            stream=True,
        )
        line.outcome = Outcome(
            status=response.status_code,
            retry_after=_seconds(response.headers.get("Retry-After", "")),
        )
        with response:
            _read_rest(response)
        return line.outcome


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
    deadline = time.monotonic() + KEPT_BODY_S
    left = KEPT_BODY_BYTES
    try:
        while left > 0 and time.monotonic() < deadline:
            chunk = response.raw.read1(left)
            if not chunk:
                response.raw.release_conn()
                return
            left -= len(chunk)
    except (HTTPError, OSError):
        return


def _seconds(text: str) -> float | None:
    """Return what Retry-After asks for, where it is a number of seconds."""
    return float(text) if _DELTA_SECONDS.fullmatch(text) else None


def _unanswered(error: BaseException) -> bool:
    """Tell whether a connection ended before the first byte of an answer."""
    return any(isinstance(cause, ProtocolError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything it wraps, outermost first."""
    cause: object = error
    while isinstance(cause, BaseException):
        yield cause
        inner = getattr(cause, "reason", None) or next(iter(cause.args), None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__


def _reason(error: BaseException) -> str:
    """Say in words a person can act on why there was no answer."""
    if isinstance(error, ForbiddenTarget):
        return str(error)
    causes = list(_causes(error))
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return "host name not found"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"TLS failed: {causes[-1]}"
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return os.strerror(cause.errno).lower()
    if _unanswered(error):
        return "connection closed without an answer"
    return f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
