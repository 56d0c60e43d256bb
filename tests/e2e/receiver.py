"""A receiver of webhooks. It records every request, and the path decides the response.

``/ok/…`` responds 200, ``/statuses/500,200/…`` gives one status per attempt (the last one for all
further attempts), ``/half/…`` fails every second time on average, ``/held/…`` responds 200 once
``release`` is called, ``/hang/…`` never responds.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.support.waiting import PATIENCE_S, eventually

T = TypeVar("T")


@dataclass(frozen=True)
class Arrival:
    """One request as it came in; ``at`` is epoch seconds."""

    at: float
    request_line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return self.request_line.split(" ")[1]

    def header(self, name: str) -> str | None:
        """Return the one value of a header; two values would be a fault of the sender."""
        values = [value for given, value in self.headers if given.lower() == name.lower()]
        assert len(values) < 2, self.headers
        return values[0] if values else None


class Receiver:
    """Listens on loopback on an event loop of its own thread, from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver")
        self._released = asyncio.Event()
        self._arrivals: list[Arrival] = []
        self._handlers: set[asyncio.Task[Any]] = set()
        self.port = 0

    def start(self) -> None:
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def release(self) -> None:
        """Respond to the held requests, and at once to all further ones."""
        self._loop.call_soon_threadsafe(self._released.set)

    def arrivals(self, prefix: str = "/") -> list[Arrival]:
        """Return the requests to paths that begin with ``prefix``, in order."""
        return [arrival for arrival in list(self._arrivals) if arrival.path.startswith(prefix)]

    def counts(self, prefix: str = "/") -> Counter[str]:
        """Return how often each path was called."""
        return Counter(arrival.path for arrival in self.arrivals(prefix))

    def wait_for(
        self, count: int, prefix: str = "/", patience_s: float = PATIENCE_S
    ) -> list[Arrival]:
        """Return the arrivals once there are ``count``; fail when they do not come."""
        eventually(lambda: len(self.arrivals(prefix)) >= count, patience_s)
        arrivals = self.arrivals(prefix)
        assert len(arrivals) >= count, f"{len(arrivals)} of {count} webhooks arrived on {prefix}"
        return arrivals

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler
        self._handlers.add(handler)
        try:
            while True:
                arrival = await _read(reader)
                self._arrivals.append(arrival)
                status = await self._status(arrival.path)
                writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # a cancelled handler may end quietly: only ``_close`` cancels
        finally:
            self._handlers.discard(handler)
            writer.transport.abort()

    async def _status(self, path: str) -> int:
        kind, _, rest = path[1:].partition("/")
        if kind == "hang":
            await asyncio.Event().wait()
        if kind == "held":
            await self._released.wait()
        if kind == "half":
            return 500 if random.Random(f"{path} {self.counts()[path]}").random() < 0.5 else 200
        if kind == "statuses":
            statuses = rest.partition("/")[0].split(",")
            return int(statuses[min(self.counts()[path], len(statuses)) - 1])
        return 200


async def _read(reader: asyncio.StreamReader) -> Arrival:
    head = await reader.readuntil(b"\r\n\r\n")
    at = time.time()
    request_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((value for name, value in headers if name.lower() == "content-length"), "0")
    return Arrival(at, request_line, headers, await reader.readexactly(int(length)))
