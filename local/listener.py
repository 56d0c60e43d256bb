"""The sockets that listen, and accepting connections on one of them."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

from local.address import family_of

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that the system keeps until a worker accepts them."""

SEND_BUFFER_BYTES = 131_072
"""What the system may keep of the responses of one connection; Linux takes twice as much for it.

By default it is 4 MB on Linux, so that 400 clients which do not read took 1.4 GB that no bound of a
worker counts. Connections inherit it.
"""

PAUSE_S = 0.5
"""How long nothing is accepted after an error such as too many open files."""


def listen(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return a socket for each worker. Raises ``OSError``.

    On Linux each has a queue of its own, and the system spreads connections over them. With one for
    all, the worker that was awake took every connection of a burst (measured: 32 of 32). Elsewhere
    there is one for all, because the system would give all connections to one of the queues.
    """
    if sys.platform == "linux":
        return [_listener(host, port, shares_port=True) for _ in range(workers)]
    return [_listener(host, port, shares_port=False)] * workers


def _listener(host: str, port: int, *, shares_port: bool) -> socket.socket:
    listener = socket.create_server(
        (host, port), family=family_of(host), backlog=BACKLOG, reuse_port=shares_port
    )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    listener.setblocking(False)
    return listener


class Acceptor:
    """Accepts one connection in each turn of the event loop, so that workers may take turns.

    Unlike a server of asyncio, it waits a while when the system has no more files to open.
    """

    def __init__(
        self,
        listener: socket.socket,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], asyncio.Protocol],
        *,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._protocol = protocol
        self._pause_s = pause_s
        self._tasks: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Accept nothing more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker has it, or the client has gone
        except OSError as error:
            # Not at once again: the connection still waits, so that would be a busy loop.
            log.warning("connections are not accepted for %g s: %s", self._pause_s, error)
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(self._pause_s, self.start)
            return
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._protocol, connection)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
