"""A receiver on plain sockets that records every byte. A test decides its responses and faults."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Request:
    """One request, byte for byte, and the number of its connection."""

    raw: bytes
    connection: int

    @property
    def line(self) -> str:
        return self.raw.partition(b"\r\n")[0].decode("ascii")

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name. Asserts that none comes twice."""
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")[1:]
        pairs = [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
        assert len(dict(pairs)) == len(pairs), "a header came twice"
        return dict(pairs)

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


Response = Callable[[socket.socket, threading.Event], bool]
"""Responds to one request, in whatever way; returns whether the connection stays open.

The event is set when the receiver closes.
"""


def respond(status: int = 200, *headers: str, body: bytes = b"") -> Response:
    """Respond at once and keep the connection."""
    lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}", *headers, "", ""]

    def send(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall("\r\n".join(lines).encode() + body)
        return True

    return send


def respond_and_close(connection: socket.socket, over: threading.Event) -> bool:
    """Respond as if the connection were kept, then close it."""
    respond()(connection, over)
    return False


def close(_connection: socket.socket, _over: threading.Event) -> bool:
    """Close the connection without a response."""
    return False


def reset(connection: socket.socket, _over: threading.Event) -> bool:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    return False


def hang(_connection: socket.socket, over: threading.Event) -> bool:
    """Never respond."""
    over.wait()
    return False


def send_raw(raw: bytes) -> Response:
    """Send these bytes, whatever they are, and close."""

    def send(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall(raw)
        return False

    return send


def stay(raw: bytes) -> Response:
    """Send these bytes, and keep the connection."""

    def send(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall(raw)
        return True

    return send


def break_off(raw: bytes, end: Response) -> Response:
    """Send these bytes, and end the connection so."""

    def send(connection: socket.socket, over: threading.Event) -> bool:
        connection.sendall(raw)
        time.sleep(0.05)  # a reset would overtake the bytes that it follows at once
        return end(connection, over)

    return send


def drip(first: bytes, drop: bytes) -> Response:
    """Send ``first``, then ``drop`` every 10 ms without an end."""

    def send(connection: socket.socket, over: threading.Event) -> bool:
        connection.sendall(first)
        while not over.wait(0.01):
            connection.sendall(drop)
        return False

    return send


class Receiver:
    """Listens on loopback. Gives the first response to the first request, and so on.

    The last response is given to all further requests. ``greet`` runs before any request is read,
    and ends the connection unless it returns True.
    """

    def __init__(
        self, *responses: Response, greet: Response | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._greet = greet
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self._responses = responses or (respond(),)
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
                    with self._encrypted(connection) as encrypted:
                        self._respond(encrypted, number)
            with self._lock:
                self._open.discard(connection)

    def _encrypted(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        encrypted = self._tls.wrap_socket(connection, server_side=True)
        with self._lock:
            self._open.add(encrypted)
        return encrypted

    def _respond(self, connection: socket.socket, number: int) -> None:
        for raw in _requests(connection):
            with self._lock:
                self.requests.append(Request(raw, number))
                index = min(len(self.requests), len(self._responses)) - 1
            if not self._responses[index](connection, self._over):
                return


def _requests(connection: socket.socket) -> Iterator[bytes]:
    """Yield requests until the other side closes. Bytes after the headers are the body."""
    while True:
        raw = b""
        while b"\r\n\r\n" not in raw:
            received = connection.recv(65_536)
            if not received:
                return
            raw += received
        head, _, body = raw.partition(b"\r\n\r\n")
        announced = re.search(rb"(?im)^content-length: *(\d+)", head)
        missing = (int(announced[1]) if announced else 0) - len(body)
        while missing > 0:
            received = connection.recv(missing)
            if not received:
                return
            raw += received
            missing -= len(received)
        connection.settimeout(0.01)  # bytes that nobody announced came right after
        with contextlib.suppress(TimeoutError):
            raw += connection.recv(65_536)
        connection.settimeout(None)
        yield raw
