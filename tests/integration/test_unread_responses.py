"""What clients that ask for long pages and do not read them cost a worker, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvloop

from local.connections import Connections
from local.http_connection import MAX_BACKLOG_BYTES, Connection, Timeouts
from local.http_message import HttpRequest, HttpResponse
from tests.support.loop import until

PAGE = b"x" * 8_000_000
"""More than the system's buffers of a connection on loopback take."""

MAX_UNSENT_BYTES = 4 * len(PAGE)
CLIENTS = 40
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
STALLED_S = 0.2


class Pages:
    """An application whose every response is a long page."""

    def __init__(self) -> None:
        self.responses = 0

    def reads_body(self, _request: HttpRequest) -> bool:
        return False

    def max_body_bytes(self, _request: HttpRequest) -> int:
        return 0

    def admit(self, _request: HttpRequest, done: Callable[[bool], None]) -> None:
        done(True)

    def carry_out(self, _request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        self.responses += 1
        done(HttpResponse(200, {"Content-Length": str(len(PAGE))}, PAGE))


class Worker:
    """Serves pages on a socket, and knows what its connections have not sent."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.pages = Pages()
        self.connections = Connections(
            self._loop, CLIENTS * 2, max_unsent_bytes=MAX_UNSENT_BYTES, stalled_s=STALLED_S
        )
        self._protocols: list[Connection] = []

    async def listen(self) -> int:
        """Listen, and return the port."""
        self._server = await self._loop.create_server(self._connection, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def unsent_bytes(self) -> int:
        return sum(protocol.unsent_bytes for protocol in self._protocols)

    def close(self) -> None:
        self._server.close()
        for protocol in self._protocols:
            protocol.abort()

    def _connection(self) -> Connection:
        protocol = Connection(self.pages, self.connections, self._loop, Timeouts())
        self._protocols.append(protocol)
        return protocol


async def _trial() -> tuple[int, bytes, bytes]:
    """Return the unsent bytes, and how the responses of a late and a later client begin."""
    worker = Worker()
    port = await worker.listen()
    loop = asyncio.get_running_loop()
    clients = []
    try:
        for _ in range(CLIENTS):
            client = socket.create_connection(("127.0.0.1", port))
            clients.append(client)
            client.sendall(GET)
        await until(lambda: worker.pages.responses == CLIENTS)
        unsent = worker.unsent_bytes
        clients[-1].setblocking(False)
        late = await loop.sock_recv(clients[-1], 20)
        await asyncio.sleep(STALLED_S * 1.5)  # real sockets: the loop's clock cannot be moved
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        page = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(len(PAGE))
        writer.close()
    finally:
        for client in clients:
            client.close()
        worker.close()
    return unsent, late, page


def test_pages_that_nobody_reads_take_bounded_memory_and_make_room_for_who_reads() -> None:
    unsent, late, page = uvloop.run(_trial())
    assert MAX_UNSENT_BYTES // 4 < unsent <= MAX_UNSENT_BYTES + CLIENTS * MAX_BACKLOG_BYTES
    assert late.startswith(b"HTTP/1.1 503 ")
    assert page.startswith(b"HTTP/1.1 200 ")
    assert page.endswith(PAGE)
