"""The receiver of the benchmarks' webhooks: a process that notes the time of each, and no more.

It is a raw protocol because it shares the machine with what it measures. A second port accepts
connections and never answers. Commands come on stdin, a line each; answers go to stdout as JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvloop

from bench.figures import BenchError
from bench.server import HOST, PROJECT

Arrivals = dict[int, list[float]]
"""When the webhooks of each timer came: epoch milliseconds by id."""

OPEN_FILES = 16_384
_BACKLOG = 4096
_HEAD_END = b"\r\n\r\n"
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Sink:
    """The handle on a sink's process. ``url`` answers, ``hanging_url`` never does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        port, hanging_port = self._read()
        self.url = f"http://{HOST}:{port}/hook"
        self.hanging_url = f"http://{HOST}:{hanging_port}/hook"

    def arrived(self) -> int:
        """Return how many webhooks came since the last ``take``."""
        return int(self._ask("arrived"))

    def hanging(self) -> int:
        """Return how many connections wait for an answer now."""
        return int(self._ask("hanging"))

    def take(self) -> Arrivals:
        """Return what came, and forget it."""
        arrivals: Arrivals = defaultdict(list)
        for timer_id, at in self._ask("take"):
            arrivals[timer_id].append(at)
        return dict(arrivals)

    def _ask(self, command: str) -> Any:
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
    """Yield a sink; it ends when its stdin does, and so with this process too."""
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


class _Answering(asyncio.Protocol):
    """Answers empty POSTs on a kept-alive connection, and notes (id, epoch ms) of each."""

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
        self._transport.write(_ANSWER * len(heads))


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
    ports = []
    for protocol in (lambda: _Answering(arrivals), lambda: _Hanging(hanging)):
        server = await loop.create_server(protocol, HOST, 0, backlog=_BACKLOG)
        ports.append(server.sockets[0].getsockname()[1])
    _say(ports)
    ended = asyncio.Event()

    def obey() -> None:
        command = sys.stdin.readline().strip()
        if command == "arrived":
            _say(len(arrivals))
        elif command == "hanging":
            _say(len(hanging))
        elif command == "take":
            _say(arrivals)
            arrivals.clear()
        else:
            ended.set()

    loop.add_reader(sys.stdin.fileno(), obey)
    await ended.wait()


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    _raise_file_limit()
    uvloop.run(_serve())
