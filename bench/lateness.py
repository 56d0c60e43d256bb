"""How late webhooks arrive, by the clock of the machine that sends and receives them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench import timers
from bench.figures import BenchError, progress, spread_of
from bench.server import running
from bench.sink import Arrivals, Sink

MAX_DRAIN_S = 30
"""How long the last webhooks may take after their due time."""

DUPLICATES_WAIT_S = 1.0
"""How long to wait for calls that are made twice."""

# The number of timers, the seconds within which they are due, and those within which they are set.
CASES = ((1_000, 10, 10), (10_000, 10, 10), (10_000, 1, 5))


def measure(sink: Sink) -> dict[str, Any]:
    """Return the lateness of each case, on a server of its own."""
    figures = {}
    for count, window_s, over_s in CASES:
        progress(f"{count} timers due within {window_s} s")
        with running() as server:
            ids = timers.create_due_within(window_s, server.port, [sink.url] * count, over_s=over_s)
            await_arrivals(sink, count, timers.LEAD_S + window_s + MAX_DRAIN_S)
            due = timers.due_times(server.port)
            figures[f"{count}_within_{window_s}_s"] = lateness(ids, due, sink.take())
    return figures


def await_arrivals(sink: Sink, count: int, patience_s: float) -> None:
    """Return a little after ``count`` webhooks arrived, or when ``patience_s`` is over."""
    deadline = time.monotonic() + patience_s
    while sink.arrived() < count and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(DUPLICATES_WAIT_S)


def lateness(ids: Sequence[int], due: Mapping[int, float], arrivals: Arrivals) -> dict[str, Any]:
    """Return how late the first calls of ``ids`` were, and how many calls were missing or repeated.

    ``due`` has epoch milliseconds, rounded up as the service does. So ``min_ms`` is negative only
    if a webhook was early. Raises ``BenchError`` for a timer that the service has lost.
    """
    lost = [timer_id for timer_id in ids if timer_id not in due]
    if lost:
        raise BenchError(f"{len(lost)} timers were acknowledged and are not listed")
    due_times = [due[timer_id] for timer_id in ids]
    called = [timer_id for timer_id in ids if timer_id in arrivals]
    return {
        **spread_of([min(arrivals[timer_id]) - due[timer_id] for timer_id in called]),
        "due_within_ms": round(max(due_times) - min(due_times)),
        "missing": len(ids) - len(called),
        "duplicates": sum(len(arrivals[timer_id]) - 1 for timer_id in called),
    }
