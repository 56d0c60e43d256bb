"""The open connections of one worker: how many there may be, and how much they may leave unsent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

MAX_UNSENT_BYTES = 64 * 1024 * 1024
"""Responses that clients have not read yet, of all connections of a worker."""

MAX_RECEIVED_BYTES = 64 * 1024 * 1024
"""Bodies of all connections of a worker, until their responses; not short ones that came whole."""

STALLED_S = 2.0
"""A client that reads nothing for so long makes room when ``MAX_UNSENT_BYTES`` are used."""

MIN_RATE_BYTES_S = 32_768
"""A client that has read more slowly since its response, for ``STALLED_S`` or longer, does too.

Otherwise a few clients that read a byte now and then would hold all the room.
"""

UNREAD_TIMEOUT_S = 30.0
"""A client that reads nothing for so long is disconnected in any case."""

CHECK_INTERVAL_S = 1.0


class OpenConnection(Protocol):
    """A connection as this module sees it."""

    @property
    def unsent_bytes(self) -> int:
        """The bytes of responses that wait to be sent."""

    def abort(self) -> None:
        """Close it at once. What is unsent is lost."""

    def stop(self) -> None:
        """Close it as soon as no request is in hand."""


@dataclass(slots=True)
class _Unsent:
    """What one connection has not sent, and since when (loop time, s) nothing was sent of it.

    ``began`` is when it had ``first_size`` bytes to send.
    """

    size: int
    since: float
    first_size: int
    began: float

    def is_slow(self, size: int, now: float, stalled_s: float) -> bool:
        """Tell whether a client with ``size`` bytes left has stopped reading, or nearly so."""
        if size == self.size and now - self.since >= stalled_s:
            return True
        waited_s = now - self.began
        return waited_s >= stalled_s and self.first_size - size < waited_s * MIN_RATE_BYTES_S


class Connections:
    """Keeps the connections of one worker within bounds. It is used on the event loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_open: int,
        *,
        max_unsent_bytes: int = MAX_UNSENT_BYTES,
        max_received_bytes: int = MAX_RECEIVED_BYTES,
        stalled_s: float = STALLED_S,
        unread_timeout_s: float = UNREAD_TIMEOUT_S,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        """``max_open`` is the most connections at once. See the constants for the others."""
        self._loop = loop
        self._max_open = max_open
        self._max_unsent_bytes = max_unsent_bytes
        self._max_received_bytes = max_received_bytes
        self._stalled_s = stalled_s
        self._unread_timeout_s = unread_timeout_s
        self._check_interval_s = check_interval_s
        self._open: set[OpenConnection] = set()
        # Those without a request in hand. The first has waited for the longest time.
        self._waiting: dict[OpenConnection, None] = {}
        self._unsent: dict[OpenConnection, _Unsent] = {}
        self._total_unsent = 0
        self._received: dict[OpenConnection, int] = {}
        self._total_received = 0
        self._check: asyncio.TimerHandle | None = None
        self._all_closed = asyncio.Event()
        self.stopping = False

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def add(self, connection: OpenConnection) -> bool:
        """Note a new connection. Return False if there is no room for it.

        Beyond the limit, the one that has waited longest for a request is closed.
        """
        if len(self._open) >= self._max_open:
            if not self._waiting:
                return False
            self._drop(next(iter(self._waiting)))
        self._open.add(connection)
        self._waiting[connection] = None
        return True

    def remove(self, connection: OpenConnection) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self.sent(connection)
        self.forget_body(connection)
        if self.stopping and not self._open:
            self._all_closed.set()

    def busy(self, connection: OpenConnection) -> None:
        """Note that a connection has a request in hand, so it must not be closed."""
        self._waiting.pop(connection, None)

    def waits(self, connection: OpenConnection) -> None:
        """Note that a connection waits for a request."""
        if connection in self._open:
            self._waiting[connection] = None

    def received(self, connection: OpenConnection, size: int) -> bool:
        """Note ``size`` more bytes of a body. Return False if there is no room for them."""
        if self._total_received + size > self._max_received_bytes:
            return False
        self._received[connection] = self._received.get(connection, 0) + size
        self._total_received += size
        return True

    def forget_body(self, connection: OpenConnection) -> None:
        """Note that the body of a connection's request is no longer needed."""
        self._total_received -= self._received.pop(connection, 0)

    def unsent(self, connection: OpenConnection) -> None:
        """Note that a connection has bytes to send, and must make progress with them."""
        if connection in self._unsent or connection not in self._open:
            return
        size = connection.unsent_bytes
        self._total_unsent += size
        now = self._loop.time()
        self._unsent[connection] = _Unsent(size, now, size, now)
        if self._check is None:
            self._check = self._loop.call_later(self._check_interval_s, self._check_progress)

    def sent(self, connection: OpenConnection) -> None:
        """Note that a connection has sent all that it had to send."""
        unsent = self._unsent.pop(connection, None)
        if unsent is not None:
            self._total_unsent -= unsent.size

    def has_room(self, size: int) -> bool:
        """Tell whether ``size`` more bytes may wait to be sent.

        If there is no room, clients that hardly read are disconnected to make it.
        """
        now = self._loop.time()
        if self._total_unsent + size > self._max_unsent_bytes:
            for connection, unsent in list(self._unsent.items()):
                if unsent.is_slow(connection.unsent_bytes, now, self._stalled_s):
                    self._drop(connection)
                    if self._total_unsent + size <= self._max_unsent_bytes:
                        break
        return self._total_unsent + size <= self._max_unsent_bytes

    async def stop(self, grace_s: float) -> bool:
        """Close connections as their requests end; return whether all closed within ``grace_s``."""
        self.stopping = True
        for connection in list(self._open):
            connection.stop()
        if not self._open:
            return True
        try:
            await asyncio.wait_for(self._all_closed.wait(), grace_s)
        except asyncio.TimeoutError:
            return False
        return True

    def _drop(self, connection: OpenConnection) -> None:
        # Forgotten at once: the event loop tells only later that it is closed.
        self.remove(connection)
        connection.abort()

    def _check_progress(self) -> None:
        """Disconnect clients that read nothing for long."""
        self._check = None
        now = self._loop.time()
        for connection, unsent in list(self._unsent.items()):
            size = connection.unsent_bytes
            if size != unsent.size:
                self._total_unsent += size - unsent.size
                unsent.size, unsent.since = size, now
            elif now - unsent.since >= self._unread_timeout_s:
                self._drop(connection)
        if self._unsent:
            self._check = self._loop.call_later(self._check_interval_s, self._check_progress)
