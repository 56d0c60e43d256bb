"""A receiver that speaks plain sockets: it records every byte and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Request:
    """One request as it came, and the number of the connection it came on."""

    raw: bytes
    connection: int

    @property
    def line(self) -> str:
        return self.raw.partition(b"\r\n")[0].decode("ascii")

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; none may come twice."""
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")[1:]
        pairs = [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
        assert len(dict(pairs)) == len(pairs), "a header came twice"
        return dict(pairs)

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


Answer = Callable[[socket.socket, threading.Event], bool]
"""Answers one request; returns whether the connection stays open."""


def answer(status: int = 200, *headers: str, body: bytes = b"") -> Answer:
    """Answer at once and keep the connection."""
    lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}", *headers, "", ""]

    def send(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall("\r\n".join(lines).encode() + body)
        return True

    return send


def answer_and_close(connection: socket.socket, over: threading.Event) -> bool:
    """Answer as if the connection were kept, and close it all the same."""
    answer()(connection, over)
    return False


def close(_connection: socket.socket, _over: threading.Event) -> bool:
    """Close the connection without a word."""
    return False


def reset(connection: socket.socket, _over: threading.Event) -> bool:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    return False


def hang(_connection: socket.socket, over: threading.Event) -> bool:
    """Never answer."""
    over.wait()
    return False


def talk(raw: bytes) -> Answer:
    """Send ``raw``, whatever it is, and close."""

    def send(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall(raw)
        return False

    return send


def drip(first: bytes, drop: bytes) -> Answer:
    """Send ``first``, then ``drop`` again and again, for ever."""

    def send(connection: socket.socket, over: threading.Event) -> bool:
        connection.sendall(first)
        while not over.wait(0.01):
            connection.sendall(drop)
        return False

    return send


class Receiver:
    """Listens on loopback; answers the first request with the first answer, and so on.

    The last answer is for all that follow. ``greet`` comes before any request is read, and ends
    the connection unless it returns True.
    """

    def __init__(
        self, *answers: Answer, greet: Answer | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._greet = greet
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self._answers = answers or (answer(),)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            number = self.connections
            self._spawn(functools.partial(self._serve, connection, number))

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            with self._lock:
                self._open.add(connection)
            with contextlib.suppress(OSError):
                if self._greet is None or self._greet(connection, self._over):
                    with self._encrypted(connection) as talking:
                        self._converse(talking, number)
            with self._lock:
                self._open.discard(connection)

    def _encrypted(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        encrypted = self._tls.wrap_socket(connection, server_side=True)
        with self._lock:
            self._open.add(encrypted)
        return encrypted

    def _converse(self, connection: socket.socket, number: int) -> None:
        for raw in _requests(connection):
            with self._lock:
                self.requests.append(Request(raw, number))
                place = min(len(self.requests), len(self._answers)) - 1
            if not self._answers[place](connection, self._over):
                return


def _requests(connection: socket.socket) -> Iterator[bytes]:
    """Yield requests until the other side closes; what follows the headers is body."""
    while True:
        raw = connection.recv(65_536)
        while raw and b"\r\n\r\n" not in raw:
            raw += connection.recv(65_536)
        if not raw:
            return
        connection.settimeout(0.01)  # a body, if one came, came with the headers or right after
        with contextlib.suppress(TimeoutError):
            raw += connection.recv(65_536)
        connection.settimeout(None)
        yield raw
