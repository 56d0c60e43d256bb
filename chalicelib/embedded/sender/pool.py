"""The idle connections of the sender, by receiver."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict

from chalicelib.embedded.sender.connection import Connection
from chalicelib.embedded.sender.request import Origin

KEEPALIVE_S = 15.0
"""How long an idle connection is kept for the next call to the same receiver."""

MAX_IDLE = 1_000
"""Idle connections in all: each holds an open file that a call may need."""


class IdlePool:
    """Keeps connections that may be used again, the latest used first."""

    def __init__(self, *, keepalive_s: float = KEEPALIVE_S, max_idle: int = MAX_IDLE) -> None:
        self._keepalive_s = keepalive_s
        self._max_idle = max_idle
        self._loop = asyncio.get_running_loop()
        self._by_origin: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._expiry: OrderedDict[Connection, tuple[Origin, float]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, origin: Origin) -> Connection | None:
        """Return a connection to ``origin`` that can be used, None if there is none."""
        kept = self._by_origin.get(origin)
        while kept:
            connection = kept.pop()
            self._expiry.pop(connection, None)
            if not kept:
                del self._by_origin[origin]
            if connection.usable:
                return connection
            connection.close()
        return None

    def put(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection for the next call to ``origin``."""
        if self._closed:
            connection.close()
            return
        if len(self._expiry) >= self._max_idle:
            self._drop(next(iter(self._expiry)))
        self._by_origin[origin].append(connection)
        self._expiry[connection] = (origin, self._loop.time() + self._keepalive_s)
        if self._timer is None:
            self._timer = self._loop.call_later(self._keepalive_s, self._expire)

    def clear(self) -> None:
        """Close every idle connection."""
        while self._expiry:
            self._drop(next(iter(self._expiry)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has ended: it would take the place of a good one."""
        if connection in self._expiry:
            self._drop(connection)

    def close(self) -> None:
        """Close every idle connection, and from now on each one that would become idle."""
        self._closed = True
        self.clear()

    def _expire(self) -> None:
        """Close what has been idle for too long. One timer serves all connections."""
        self._timer = None
        now = self._loop.time()
        while self._expiry:
            connection, (_, expires_at) = next(iter(self._expiry.items()))
            if expires_at > now:
                self._timer = self._loop.call_at(expires_at, self._expire)
                return
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        origin, _ = self._expiry.pop(connection)
        kept = self._by_origin[origin]
        kept.remove(connection)
        if not kept:
            del self._by_origin[origin]
        connection.close()
