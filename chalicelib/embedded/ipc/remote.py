"""One side of the local socket: a process of the API that reads the file and sends requests."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from chalicelib.domain.errors import Unavailable
from chalicelib.embedded.database import open_reader
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.ipc.loop_channel import LoopChannel
from chalicelib.embedded.ipc.suspension import can_suspend
from chalicelib.embedded.ipc.thread_channel import ThreadChannel
from chalicelib.embedded.store import SQLiteTimerStore

CONNECT_TIMEOUT_S = 5.0
"""How long a request waits for a dispatcher that is starting, or is being restarted."""

RESPONSE_TIMEOUT_S = 10.0
"""How long a request waits for the dispatcher to respond."""

_CONNECT_AGAIN_S = 0.02


class DispatcherClient:
    """A client of the dispatcher for many threads, each with a reader and a connection.

    After ``use_loop`` it serves requests on an event loop too, which share one connection.
    """

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
        # Threads that share a reader would wait for each other.
        self._thread = threading.local()
        self._thread_channel = ThreadChannel(self._connect)
        self._loop_channel: LoopChannel | None = None
        self._is_ready = False

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve requests in greenlets of ``loop`` too, which runs in the calling thread."""
        self._loop_channel = LoopChannel(
            loop, self._connect, response_timeout_s=self._response_timeout_s
        )

    @property
    def is_ready(self) -> bool:
        """Whether the file exists and is migrated, so that no reader waits for the dispatcher."""
        return self._is_ready

    def close(self) -> None:
        """Close the reader and the connection of the calling thread, and of no other."""
        self._thread_channel.close()
        reader: SQLiteTimerStore | None = getattr(self._thread, "reader", None)
        if reader is not None:
            reader.close()
            self._thread.reader = None

    @property
    def _reader(self) -> SQLiteTimerStore:
        reader: SQLiteTimerStore | None = getattr(self._thread, "reader", None)
        if reader is None:
            if not self._is_ready:
                self._thread_channel.connection()
            reader = SQLiteTimerStore(open_reader(str(self._folder.store)))
            self._thread.reader = reader
        return reader

    def _connect(self) -> socket.socket:
        deadline = self._clock() + CONNECT_TIMEOUT_S
        while True:
            try:
                connection = self._folder.connect(self._response_timeout_s)
            except OSError as error:
                if self._clock() >= deadline:
                    raise Unavailable("The dispatcher is not running.") from error
            else:
                # It listens only when it has made and migrated the file.
                self._is_ready = True
                return connection
            self._sleep(_CONNECT_AGAIN_S)

    def _write(self, method: str, arguments: dict[str, Any]) -> Any:
        message = messages.request(method, arguments)
        try:
            line = self._exchange(message)
        except OSError as error:
            # Not sent again: the write may have been committed, and a second one would set a
            # second timer.
            raise Unavailable(
                "The dispatcher was lost before it answered: the request may have been carried out."
            ) from error
        return messages.read_response(line)

    def _exchange(self, message: bytes) -> bytes:
        """Send one request and return its response."""
        if self._loop_channel is not None and can_suspend():
            return self._loop_channel.exchange(message)
        return self._thread_channel.exchange(message)
