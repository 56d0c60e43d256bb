"""What clients that send nothing, or only half of a request, cost the others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench import load, timers
from bench.figures import progress
from bench.lateness import await_arrivals, lateness
from bench.server import HOST, running
from bench.sink import Sink
from chalicelib.embedded import open_files

IDLE = 10_000
HALF_HEADS = 200
STALLED_BODIES = 500
OTHER_PROTOCOLS = 50

TIMERS = 1_000
WINDOW_S = 5
LOAD_S = 3
CONNECTIONS = 32
RENEW_S = 5
"""How long half requests stay before others take their place, in seconds."""

_HEAD = f"POST /timers HTTP/1.1\r\nHost: {HOST}\r\n"
_HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)


def measure(sink: Sink) -> dict[str, Any]:
    """Return throughput and lateness, without such clients and beside them."""
    with running() as server:
        progress("requests and timers of a server without other clients")
        alone = _figures(server.port, sink)
        with _clients(server.port) as counts:
            progress(f"the same beside {counts}")
            return {"clients": counts, "alone": alone, "beside": _figures(server.port, sink)}


def _figures(port: int, sink: Sink) -> dict[str, Any]:
    figures: dict[str, Any] = {"client": load.CLIENT}
    body = timers.body(timers.HOUR, sink.url)
    for name, path, sent in (("post", "/timers", body), ("get", "/timers/1", None)):
        figures[name] = load.measure(port, path, sent, connections=CONNECTIONS, duration_s=LOAD_S)
    ids = timers.create_due_within(WINDOW_S, port, [sink.url] * TIMERS, over_s=WINDOW_S)
    await_arrivals(sink, TIMERS, timers.LEAD_S + WINDOW_S + 10)
    figures["lateness"] = lateness(ids, timers.due_times(port), sink.take())
    return figures


@contextmanager
def _clients(port: int) -> Iterator[dict[str, int]]:
    """Open the connections of the other clients; yield how many of each kind there are."""
    brief = {
        "half_heads": (HALF_HEADS, _HEAD.encode()),
        "stalled_bodies": (STALLED_BODIES, f"{_HEAD}Content-Length: 100\r\n\r\n{{".encode()),
        "other_protocols": (OTHER_PROTOCOLS, _HTTP_2),
    }
    others = 2 * sum(count for count, _ in brief.values())
    idle = min(IDLE, open_files.raise_limit(IDLE + others) - others)
    ended = threading.Event()

    def come_again() -> None:
        # The server closes them after 10 s.
        while not ended.is_set():
            with ExitStack() as stack:
                for count, beginning in brief.values():
                    _open(stack, port, count, beginning)
                ended.wait(RENEW_S)

    with ExitStack() as stack:
        _open(stack, port, idle, b"")
        renewing = threading.Thread(target=come_again)
        renewing.start()
        try:
            yield {"idle": idle, **{name: count for name, (count, _) in brief.items()}}
        finally:
            ended.set()
            renewing.join()


def _open(stack: ExitStack, port: int, count: int, beginning: bytes) -> None:
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection((HOST, port), 10))
        connection.sendall(beginning)
