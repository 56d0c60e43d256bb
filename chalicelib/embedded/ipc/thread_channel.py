"""Connections to the dispatcher for requests in threads: each thread has one of its own."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

from chalicelib.embedded.ipc import messages


class ThreadChannel:
    """Exchanges messages with the dispatcher. Threads that shared a connection would wait."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        """``connect`` raises ``Unavailable`` if there is no dispatcher."""
        self._connect = connect
        self._thread = threading.local()

    def exchange(self, message: bytes) -> bytes:
        """Send one request and return its response.

        Raises ``OSError`` if the dispatcher is lost or does not respond in time, and
        ``Unavailable`` if there is none.
        """
        try:
            return self._exchange(messages.numbered(0, message))
        except OSError:
            self.close()
            raise

    def connection(self) -> socket.socket:
        """Return the connection of the calling thread. Raises ``Unavailable``."""
        connection: socket.socket | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._connect()
            self._thread.connection = connection
        return connection

    def close(self) -> None:
        """Close the connection of the calling thread, and of no other."""
        connection: socket.socket | None = getattr(self._thread, "connection", None)
        if connection is not None:
            connection.close()
            self._thread.connection = None

    def _exchange(self, line: bytes) -> bytes:
        connection = self.connection()
        # A restarted dispatcher has closed its old connections. Find out before the request is
        # sent: afterwards, a lost connection would leave the outcome unknown.
        if _was_closed(connection):
            self.close()
            connection = self.connection()
        connection.sendall(line)
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError("the dispatcher closed the connection")
            parts.append(part)
        _, response = messages.read_number(b"".join(parts))
        return response


def _was_closed(connection: socket.socket) -> bool:
    """Tell whether the dispatcher has closed an idle connection.

    It sends nothing without a request, so a connection that can be read is at its end.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
