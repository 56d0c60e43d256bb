"""A connection to the dispatcher that all requests on an event loop share.

A request waits for its response without holding up the event loop (``suspension``).
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from chalicelib.domain.errors import Unavailable
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.ipc.suspension import Suspension

CHECK_INTERVAL_S = 1.0
"""How often a request without a response is looked for. It may wait longer by so much."""


@dataclass(slots=True)
class _Exchange:
    """A request that waits for its response, and the time at which it gives up (loop time, s)."""

    suspension: Suspension[bytes]
    gives_up_at: float


class LoopChannel(asyncio.Protocol):
    """Exchanges messages with the dispatcher. It is used on its event loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[], socket.socket],
        *,
        response_timeout_s: float,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        """``connect`` runs in a thread, and raises ``Unavailable`` if there is no dispatcher."""
        self._loop = loop
        self._connect = connect
        self._response_timeout_s = response_timeout_s
        self._check_interval_s = check_interval_s
        self._numbers = itertools.count(1)
        # By number, and so in the order in which they give up.
        self._exchanges: dict[int, _Exchange] = {}
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        # Messages that wait for the connection.
        self._waiting: list[bytes] = []
        self._partial = b""
        self._check: asyncio.TimerHandle | None = None
        self._start_connecting()

    def exchange(self, message: bytes) -> bytes:
        """Send one request and suspend the caller until its response.

        Raises ``OSError`` if the dispatcher is lost or does not respond in time, and
        ``Unavailable`` if there is none.
        """
        number = next(self._numbers)
        exchange = _Exchange(Suspension(), self._loop.time() + self._response_timeout_s)
        self._exchanges[number] = exchange
        line = messages.numbered(number, message)
        if self._transport is not None:
            self._transport.write(line)
        else:
            self._waiting.append(line)
            self._start_connecting()
        if self._check is None:
            self._check = self._loop.call_later(self._check_interval_s, self._give_up)
        return exchange.suspension.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waits for the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._partial = b""
        waiting, self._waiting = self._waiting, []
        self._transport.write(b"".join(waiting))

    def data_received(self, data: bytes) -> None:
        """Resume the requests whose responses came."""
        # A read may end within a line: its rest comes with the next one.
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            number, response = messages.read_number(line)
            exchange = self._exchanges.pop(number, None)
            # One that gave up is no longer there.
            if exchange is not None:
                exchange.suspension.resume(response)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the requests that wait: whether they were carried out is not known."""
        self._transport = None
        self._fail_all(ConnectionResetError("the dispatcher closed the connection"))

    def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._check is not None:
            self._check.cancel()
        if self._transport is not None:
            self._transport.close()

    def _start_connecting(self) -> None:
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            connection = await self._loop.run_in_executor(None, self._connect)
            connection.setblocking(False)
            await self._loop.create_unix_connection(lambda: self, sock=connection)
        except (OSError, Unavailable) as error:
            self._waiting.clear()
            self._fail_all(error)
        finally:
            self._connecting = None

    def _fail_all(self, error: Exception) -> None:
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges.values():
            self._loop.call_soon(exchange.suspension.fail, error)

    def _give_up(self) -> None:
        """Fail the requests that have waited for too long."""
        self._check = None
        now = self._loop.time()
        for number, exchange in list(self._exchanges.items()):
            if exchange.gives_up_at > now:
                break
            del self._exchanges[number]
            error = TimeoutError("the dispatcher does not respond")
            self._loop.call_soon(exchange.suspension.fail, error)
        if self._exchanges:
            self._check = self._loop.call_later(self._check_interval_s, self._give_up)
