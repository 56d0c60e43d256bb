"""One side of the local socket: a process of the API that reads the file and sends requests."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from chalicelib.domain.errors import Unavailable
from chalicelib.embedded.database import open_reader
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.store import SQLiteTimerStore

CONNECT_TIMEOUT_S = 5.0
"""How long a request waits for a dispatcher that is starting, or is being restarted."""

RESPONSE_TIMEOUT_S = 10.0
"""How long a request waits for the dispatcher to respond."""

_CONNECT_AGAIN_S = 0.02


class DispatcherClient:
    """A client of the dispatcher for many threads, each with a reader and a connection."""

    def __init__(
        self,
        folder: DataFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        response_timeout_s: float = RESPONSE_TIMEOUT_S,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._sleep = sleep
        self._response_timeout_s = response_timeout_s
        # Threads that share a reader or a connection would wait for each other.
        self._thread = threading.local()

    def close(self) -> None:
        """Close the reader and the connection of the calling thread, and of no other."""
        self._disconnect()
        reader: SQLiteTimerStore | None = getattr(self._thread, "reader", None)
        if reader is not None:
            reader.close()
            self._thread.reader = None

    @property
    def _reader(self) -> SQLiteTimerStore:
        reader: SQLiteTimerStore | None = getattr(self._thread, "reader", None)
        if reader is None:
            # Connect first: once the dispatcher listens, the file exists and is migrated.
            self._connection()
            reader = SQLiteTimerStore(open_reader(str(self._folder.store)))
            self._thread.reader = reader
        return reader

    def _connection(self) -> socket.socket:
        connection: socket.socket | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._connect()
            self._thread.connection = connection
        return connection

    def _connect(self) -> socket.socket:
        deadline = self._clock() + CONNECT_TIMEOUT_S
        while True:
            try:
                return self._folder.connect(self._response_timeout_s)
            except OSError as error:
                if self._clock() >= deadline:
                    raise Unavailable("The dispatcher is not running.") from error
            self._sleep(_CONNECT_AGAIN_S)

    def _write(self, method: str, arguments: dict[str, Any]) -> Any:
        message = messages.request(method, arguments)
        try:
            line = self._exchange(message)
        except OSError as error:
            self._disconnect()
            # Not sent again: the write may have been committed, and a second one would set a
            # second timer.
            raise Unavailable(
                "The dispatcher was lost before it answered: the request may have been carried out."
            ) from error
        return messages.read_response(line)

    def _exchange(self, message: bytes) -> bytes:
        """Send one request and return its response."""
        connection = self._connection()
        # A restarted dispatcher has closed its old connections. Find out before the request is
        # sent: afterwards, a lost connection would leave the outcome unknown.
        if _was_closed(connection):
            self._disconnect()
            connection = self._connection()
        connection.sendall(message)
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError("the dispatcher closed the connection")
            parts.append(part)
        return b"".join(parts)

    def _disconnect(self) -> None:
        connection: socket.socket | None = getattr(self._thread, "connection", None)
        if connection is not None:
            connection.close()
            self._thread.connection = None


def _was_closed(connection: socket.socket) -> bool:
    """Tell whether the dispatcher has closed an idle connection.

    It sends nothing without a request, so a connection that can be read is at its end.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
