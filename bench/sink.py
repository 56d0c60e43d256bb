"""The receiver of the benchmarks' webhooks: a process that records the time of each.

It does little else, because it shares the machine with the server that it measures. Other ports
never respond, or respond with much that nobody needs. Each line on stdin is a command; its
result goes to stdout as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvloop

from bench.figures import BenchError
from bench.server import HOST, PROJECT
from chalicelib.embedded import open_files

Arrivals = dict[int, list[float]]
"""The arrival times of each timer's webhooks: epoch milliseconds by id."""

MAX_CONNECTIONS = 16_384
_BACKLOG = 4096
_HEAD_END = b"\r\n\r\n"
_RESPONSE = b"HTTP/1.1 204 No Content\r\n\r\n"
_EARLY_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * 1_000 + b">\r\n\r\n"
_COSTLY = _EARLY_HINT * 128 + _RESPONSE


class Sink:
    """The handle on a sink's process.

    ``url`` responds, ``hanging_url`` never does, and ``costly_url`` sends 128 KB of interim
    responses first.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        urls = [_url(port) for port in self._read()]
        self.url, self.hanging_url, self.costly_url = urls

    def open(self, count: int) -> list[str]:
        """Return the URLs of ``count`` more receivers that respond, each on a port of its own."""
        return [_url(port) for port in self._command(f"open {count}")]

    def arrived(self) -> int:
        """Return how many webhooks arrived since the last ``take``."""
        return int(self._command("arrived"))

    def hanging(self) -> int:
        """Return how many connections wait for a response now."""
        return int(self._command("hanging"))

    def take(self) -> Arrivals:
        """Return the arrivals since the last ``take``, and forget them."""
        arrivals: Arrivals = defaultdict(list)
        for timer_id, at in self._command("take"):
            arrivals[timer_id].append(at)
        return dict(arrivals)

    def _command(self, command: str) -> Any:
        if self._process.stdin is None:
            raise BenchError("the sink has no stdin")
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise BenchError("the sink ended")
        return json.loads(line)


@contextmanager
def receiving() -> Iterator[Sink]:
    """Yield a sink. Its process ends when its stdin does, so also when this process is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sink"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Sink(process)
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url(port: int) -> str:
    return f"http://{HOST}:{port}/hook"


class _Responding(asyncio.Protocol):
    """Responds to empty POSTs on a kept-alive connection, and records (id, epoch ms) of each."""

    def __init__(self, arrivals: list[tuple[int, float]]) -> None:
        self._arrivals = arrivals
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now = time.time() * 1000
        *heads, self._partial = (self._partial + data).split(_HEAD_END)
        for head in heads:
            path = head.split(b" ", 2)[1]
            self._arrivals.append((int(path.rpartition(b"/")[2]), now))
        self._transport.write(_RESPONSE * len(heads))


class _Costly(asyncio.Protocol):
    """Responds to empty POSTs with many interim responses before the final one."""

    def __init__(self) -> None:
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._partial = (self._partial + data).split(_HEAD_END)
        self._transport.write(_COSTLY * len(heads))


class _Hanging(asyncio.Protocol):
    """Keeps the connection open and silent."""

    def __init__(self, open_connections: set[_Hanging]) -> None:
        self._open = open_connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    arrivals: list[tuple[int, float]] = []
    hanging: set[_Hanging] = set()

    async def listen(protocol: Callable[[], asyncio.Protocol]) -> int:
        server = await loop.create_server(protocol, HOST, 0, backlog=_BACKLOG)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def open_more(count: int) -> None:
        _say([await listen(lambda: _Responding(arrivals)) for _ in range(count)])

    protocols: list[Callable[[], asyncio.Protocol]] = [
        lambda: _Responding(arrivals),
        lambda: _Hanging(hanging),
        _Costly,
    ]
    _say([await listen(protocol) for protocol in protocols])
    ended = asyncio.Event()
    opening: set[asyncio.Task[None]] = set()

    def carry_out_command() -> None:
        command, _, argument = sys.stdin.readline().strip().partition(" ")
        if command == "arrived":
            _say(len(arrivals))
        elif command == "hanging":
            _say(len(hanging))
        elif command == "take":
            _say(arrivals)
            arrivals.clear()
        elif command == "open":
            opening.add(loop.create_task(open_more(int(argument))))
        else:  # the end of stdin
            ended.set()

    loop.add_reader(sys.stdin.fileno(), carry_out_command)
    await ended.wait()


def _say(result: object) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    open_files.raise_limit(MAX_CONNECTIONS)
    uvloop.run(_serve())
