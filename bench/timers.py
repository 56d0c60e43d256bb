"""Timers of the benchmarks: setting many of them, and reading when they are due."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import time
from collections.abc import Sequence
from datetime import datetime

import uvloop

from bench import client
from bench.figures import BenchError
from bench.server import HOST

HOUR = 3600
CONNECTIONS = 32
BATCH = 1_000
"""Timers in one request to ``POST /timers/batch``: as many as it takes."""

LEAD_S = 3
"""The time between setting the last timer and the due time of the first (s)."""

_NEXT = re.compile(r'<([^>]+)>; rel="next"')
_CREATED = 201


def body(seconds: int, url: str) -> str:
    """Return the body that sets a timer."""
    return json.dumps({"seconds": seconds, "url": url})


def create(port: int, count: int, *, seconds: int, url: str) -> float:
    """Set ``count`` timers as fast as possible; return how long that took (s)."""
    request = client.post("/timers", body(seconds, url))

    async def one(connection: client.Connection, _number: int) -> None:
        _id_in(await connection.send(request))

    began = time.perf_counter()
    uvloop.run(client.each(port, CONNECTIONS, range(count), one))
    return time.perf_counter() - began


def create_due_within(
    window_s: int, port: int, urls: list[str], *, over_s: int, key: str | None = None
) -> list[int]:
    """Set a timer for each url at an even pace over ``over_s`` seconds; return their ids in order.

    They are due evenly within ``window_s`` seconds, which begin ``LEAD_S`` after the last is set.
    Delays are whole seconds, so the due time has the same fraction of a second as the time at which
    the timer was set. The timers are set over several windows, and in each of these the delay is
    one window shorter, so that all are due in the same window. ``over_s`` is a multiple of
    ``window_s``.
    """
    requests = {
        (url, seconds): client.post("/timers", body(seconds, url), key)
        for url in set(urls)
        for seconds in range(1, over_s + LEAD_S + 1)
    }
    began = time.perf_counter()

    async def one(connection: client.Connection, number: int) -> tuple[int, int]:
        await asyncio.sleep(began + number * over_s / len(urls) - time.perf_counter())
        elapsed_s = time.perf_counter() - began
        if elapsed_s >= over_s + LEAD_S - 1:
            raise BenchError(f"this machine cannot set {len(urls)} timers within {over_s} s")
        seconds = over_s + LEAD_S - window_s * int(elapsed_s / window_s)
        return number, _id_in(await connection.send(requests[urls[number], seconds]))

    created = uvloop.run(client.each(port, CONNECTIONS, range(len(urls)), one))
    return [timer_id for _, timer_id in sorted(created)]


def due_times(port: int, key: str | None = None) -> dict[int, float]:
    """Return when every timer of a tenant is due: epoch milliseconds by id."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    due: dict[int, float] = {}
    path: str | None = "/timers?limit=1000"
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        while path:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            for timer in json.load(response):
                due[timer["id"]] = _epoch_ms(timer["due_at"])
            next_page = _NEXT.search(response.headers.get("Link", ""))
            path = next_page[1] if next_page else None
    finally:
        connection.close()
    return due


def create_batches(
    port: int, timers: Sequence[dict[str, object]], *, connections: int = 4, key: str | None = None
) -> float:
    """Set ``timers`` a thousand a request; return how long that took (s)."""
    requests = [
        client.post("/timers/batch", json.dumps({"timers": timers[start : start + BATCH]}), key)
        for start in range(0, len(timers), BATCH)
    ]

    async def one(connection: client.Connection, request: bytes) -> None:
        response = await connection.send(request)
        if response.status != http.client.OK or b'"error"' in response.body:
            raise BenchError(f"a batch was refused: {response.body[:300]!r}")

    began = time.perf_counter()
    uvloop.run(client.each(port, connections, requests, one))
    return time.perf_counter() - began


def read_at_random(port: int, ids: range, times: int) -> None:
    """Read a random one of ``ids``, ``times`` times. Every run reads the same ones."""
    choice = random.Random(1).choice

    async def one(connection: client.Connection, timer_id: int) -> None:
        response = await connection.send(client.get(f"/timers/{timer_id}"))
        if response.status != http.client.OK:
            raise BenchError(f"the response to GET /timers/{timer_id} is {response.status}")

    uvloop.run(client.each(port, CONNECTIONS, (choice(ids) for _ in range(times)), one))


def purge(port: int) -> None:
    """Remove every timer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("DELETE", "/timers")
        if connection.getresponse().status != http.client.OK:
            raise BenchError("DELETE /timers was refused")
    finally:
        connection.close()


def _id_in(response: client.Response) -> int:
    if response.status != _CREATED:
        raise BenchError(
            f"the response to POST /timers is {response.status}: {response.body[:300]!r}"
        )
    timer_id: int = json.loads(response.body)["id"]
    return timer_id


def _epoch_ms(rfc3339: str) -> float:
    # Python 3.10 does not read a "Z".
    return datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp() * 1000
