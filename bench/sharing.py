"""How late one tenant's webhooks are beside another tenant who misuses the service.

Both have keys and the limits that a server with keys has by default, but the neighbour may set any
number of timers.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from bench import timers
from bench.figures import BenchError, progress
from bench.lateness import await_arrivals, lateness
from bench.server import HOST, Server, running
from bench.sink import Sink, receiving
from chalicelib.embedded import open_files

VICTIMS = 500
WINDOW_S = 10

DUE_AT_ONCE = 100_000
HANGING = 20_000
COSTLY = 1_500
SILENT_NAMES_PER_S = 90
RECEIVERS = 14_000
REPLAYED = 50_000
REPLAY_RECEIVERS = 10

SETTINGS = {
    "TIMERS_AUTH": "keys",
    "TIMERS_ALLOW_PRIVATE": "on",  # the receivers are on loopback
    "TIMERS_CREATES_PER_SECOND": "0",
    "TIMERS_STORED_TIMERS": "0",
}

EXPIRE_TIMEOUT_S = 120.0
"""Expired timers are settled at the tenant's rate of calls, 1,000 a second."""

_SPARE_FILES = 6_000
"""Open files of a receiver's process that are connections."""


class Neighbour:
    """The other tenant: its server, key and receivers."""

    def __init__(self, server: Server, key: str, sink: Sink) -> None:
        self.server = server
        self.key = key
        self.sink = sink

    def set(self, urls: list[str], **options: object) -> None:
        """Set a timer for each of ``urls``, all due soon after the last is set."""
        # As long as setting takes, at 10,000 a second; the victim's window begins after it.
        due = datetime.now(timezone.utc) + timedelta(seconds=2 + len(urls) / 10_000)
        at = due.isoformat()
        self.set_at(at, urls, **options)

    def set_at(self, at: str, urls: list[str], **options: object) -> None:
        """Set a timer for each of ``urls``, due at ``at`` (RFC 3339)."""
        wanted: list[dict[str, object]] = [{"at": at, "url": url, **options} for url in urls]
        timers.create_batches(self.server.port, wanted, key=self.key)

    def pending(self) -> bool:
        """Return whether any timer is pending."""
        return bool(self.request("GET", "/timers?order=due&limit=1"))

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send one request; return the JSON of the response, None if it is a refusal for now."""
        connection = http.client.HTTPConnection(HOST, self.server.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            document = json.load(response)
            return document if response.status == http.client.OK else None
        finally:
            connection.close()


def measure(sink: Sink) -> dict[str, Any]:
    """Return the victim's lateness beside each neighbour, and alone."""
    return {name: _beside(misuse, name, sink) for name, misuse in MISUSES.items()}


def _beside(misuse: Callable[[Neighbour], None], name: str, sink: Sink) -> dict[str, Any]:
    progress(f"{VICTIMS} timers of one tenant beside another: {name}")
    if name == "silent_names" and not _names_are_silent():
        return {"skipped": "the resolver of this machine answers"}
    with receiving() as others, running(SETTINGS) as server:
        key = server.issue_key("victim")
        misuse(Neighbour(server, server.issue_key("neighbour"), others))
        ids = timers.create_due_within(
            WINDOW_S, server.port, [sink.url] * VICTIMS, over_s=WINDOW_S, key=key
        )
        await_arrivals(sink, VICTIMS, timers.LEAD_S + WINDOW_S + 30)
        figures = lateness(ids, timers.due_times(server.port, key), sink.take())
        progress(f"{name}: {figures}")
        return {**figures, "calls_of_the_neighbour": others.arrived() + others.hanging()}


def _nothing(_neighbour: Neighbour) -> None:
    """Leave the victim alone."""


def _due_at_once(neighbour: Neighbour) -> None:
    neighbour.set([neighbour.sink.url] * DUE_AT_ONCE)


def _hanging(neighbour: Neighbour) -> None:
    neighbour.set([neighbour.sink.hanging_url] * HANGING)


def _costly(neighbour: Neighbour) -> None:
    neighbour.set([neighbour.sink.costly_url] * COSTLY)


def _receivers(neighbour: Neighbour) -> None:
    most = open_files.raise_limit(RECEIVERS + _SPARE_FILES) - _SPARE_FILES
    neighbour.set(neighbour.sink.open(min(RECEIVERS, most)))


def _silent_names(neighbour: Neighbour) -> None:
    now = datetime.now(timezone.utc)
    for second in range(2, timers.LEAD_S + 2 * WINDOW_S):
        names = [
            f"http://s{second}-{number}.bench.invalid/" for number in range(SILENT_NAMES_PER_S)
        ]
        neighbour.set_at((now + timedelta(seconds=second)).isoformat(), names)


def _names_are_silent() -> bool:
    """Return whether a look-up of a name hangs on this machine."""
    answered = threading.Event()

    def look_up() -> None:
        with suppress(OSError):
            socket.getaddrinfo("bench.invalid", 80)
        answered.set()

    threading.Thread(target=look_up, daemon=True).start()
    return not answered.wait(1)


def _replay(neighbour: Neighbour) -> None:
    # So late that they expire without a call. A moment may be a minute ago at most.
    at = (datetime.now(timezone.utc) - timedelta(seconds=30)).isoformat()
    urls = neighbour.sink.open(REPLAY_RECEIVERS)
    wanted = REPLAYED // REPLAY_RECEIVERS
    neighbour.set_at(at, urls * wanted, max_lateness="1s")
    deadline = time.monotonic() + EXPIRE_TIMEOUT_S
    while neighbour.pending():
        if time.monotonic() > deadline:
            raise BenchError("the timers to replay did not expire in time")
        time.sleep(0.5)
    threading.Thread(target=_replay_all, args=(neighbour,), daemon=True).start()


def _replay_all(neighbour: Neighbour) -> None:
    body: dict[str, object] = {"dry_run": False, "per_second": 10_000}
    while True:
        done = neighbour.request("POST", "/timers/replay", body)
        if done is None or done["next"] is None:
            return
        body["cursor"] = done["next"]


MISUSES: dict[str, Callable[[Neighbour], None]] = {
    "alone": _nothing,
    "due_at_once": _due_at_once,
    "hanging": _hanging,
    "costly_responses": _costly,
    "silent_names": _silent_names,
    "receivers": _receivers,
    "replay": _replay,
}
