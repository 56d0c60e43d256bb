"""How many timers a second a client sets with batches, and one by one."""

from __future__ import annotations

from typing import Any

from bench import load, timers
from bench.figures import progress
from bench.server import running
from bench.sink import Sink

BATCHES = 100
CONNECTIONS = 4
SINGLE_CONNECTIONS = 32
LOAD_S = 5


def measure(sink: Sink) -> dict[str, Any]:
    """Return timers per second, one by one and in batches, on a server of each's own."""
    with running() as server:
        progress(f"timers one by one on {SINGLE_CONNECTIONS} connections")
        body = timers.body(timers.HOUR, sink.url)
        single = load.measure(
            server.port, "/timers", body, connections=SINGLE_CONNECTIONS, duration_s=LOAD_S
        )
    wanted: list[dict[str, object]] = [{"seconds": timers.HOUR, "url": sink.url}]
    wanted *= BATCHES * timers.BATCH
    with running() as server:
        progress(f"{len(wanted)} timers in {BATCHES} batches on {CONNECTIONS} connections")
        took_s = timers.create_batches(server.port, wanted, connections=CONNECTIONS)
    per_second = len(wanted) / took_s
    return {
        "single": {"client": load.CLIENT, **single},
        "batches": {
            "timers": len(wanted),
            "took_s": round(took_s, 2),
            "timers_per_second": round(per_second, 1),
        },
        "ratio": round(per_second / single["per_second"], 2),
    }
