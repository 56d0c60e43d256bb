"""How many timers can be set, and how many can be read, per second."""

from __future__ import annotations

from typing import Any

from bench import load, timers
from bench.figures import progress
from bench.server import running
from bench.sink import Sink

DURATION_S = 6
CONNECTIONS = (1, 32)


def measure(sink: Sink) -> dict[str, Any]:
    """Return figures for POST and GET on one connection and on many."""
    figures: dict[str, Any] = {"client": load.CLIENT, "seconds_each": DURATION_S}
    with running() as server:
        for name, path, body in (
            ("post", "/timers", timers.body(timers.HOUR, sink.url)),
            ("get", "/timers/1", None),
        ):
            for connections in CONNECTIONS:
                progress(f"{name.upper()} {path} on {connections} connections")
                figures[f"{name}_{connections}_connections"] = load.measure(
                    server.port, path, body, connections=connections, duration_s=DURATION_S
                )
    return figures
