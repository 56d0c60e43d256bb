"""How receivers that never respond affect other timers of the same second, and new timers."""

from __future__ import annotations

from typing import Any

from bench import load, timers
from bench.figures import progress
from bench.lateness import await_arrivals, lateness
from bench.server import running
from bench.sink import Sink

HANGING = 1_000
NORMAL = 100
LOAD_S = 3


def measure(sink: Sink) -> dict[str, Any]:
    """Return the lateness of normal timers among hanging ones, and POST while those hang."""
    progress(f"{HANGING} hanging receivers and {NORMAL} others in the same second")
    # One timer in so many is normal, so normal and hanging ones are mixed evenly.
    one_in = HANGING // NORMAL + 1
    urls = [
        sink.url if number % one_in == 0 else sink.hanging_url for number in range(HANGING + NORMAL)
    ]
    with running() as server:
        ids = timers.create_due_within(1, server.port, urls, over_s=1)
        await_arrivals(sink, NORMAL, timers.LEAD_S + 10)
        due = timers.due_times(server.port)
        normal = [timer_id for timer_id, url in zip(ids, urls, strict=True) if url == sink.url]
        hanging_before = sink.hanging()
        body = timers.body(timers.HOUR, sink.url)
        post = load.measure(server.port, "/timers", body, connections=1, duration_s=LOAD_S)
        return {
            "hanging": {"before_post": hanging_before, "after_post": sink.hanging()},
            "lateness": lateness(normal, due, sink.take()),
            "post_1_connection": {"client": load.CLIENT, **post},
        }
