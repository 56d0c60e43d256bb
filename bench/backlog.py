"""How fast one dispatcher sends, and the CPU time of a webhook: a backlog after a restart."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

from bench import timers
from bench.figures import BenchError, progress
from bench.lateness import MAX_DRAIN_S, await_arrivals
from bench.server import running
from bench.sink import Sink

COUNT = 20_000
DELAY_S = 20
"""Longer than it takes to set the timers: none may be due before the server stops."""


def measure(sink: Sink) -> dict[str, Any]:
    """Return the webhooks per second of a backlog, and the CPU time of each.

    The CPU time is that of all processes of the server, less that of a start and a stop without
    timers. Raises ``BenchError`` if the machine is too slow to set the timers in time.
    """
    progress(f"{COUNT} timers that became due while the server was stopped")
    with running() as server:
        idle_s = _cpu_s_of(server.stop)
        server.start()
        timers.create(server.port, COUNT, seconds=DELAY_S, url=sink.url)
        server.stop()
        if sink.arrived():
            raise BenchError(f"setting {COUNT} timers took longer than {DELAY_S} s")
        time.sleep(DELAY_S)

        def deliver() -> None:
            server.start()
            await_arrivals(sink, COUNT, MAX_DRAIN_S)
            server.stop()

        busy_s = _cpu_s_of(deliver)
    arrivals = sorted(min(times) for times in sink.take().values())
    return {
        "timers": COUNT,
        "missing": COUNT - len(arrivals),
        "per_second": round(1000 * len(arrivals) / (arrivals[-1] - arrivals[0]), 1),
        "cpu_us_per_webhook": round(1e6 * (busy_s - idle_s) / COUNT, 1),
    }


def _cpu_s_of(work: Callable[[], object]) -> float:
    """Return the CPU time of the processes that end during ``work``, and of their children (s)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
