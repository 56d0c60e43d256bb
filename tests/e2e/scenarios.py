"""Scenarios over HTTP that hold for every engine and every way to run the service."""

from __future__ import annotations

import time

from tests.e2e.receiver import Arrival, Receiver
from tests.e2e.server import Client
from tests.support.waiting import eventually


def set_and_fire(client: Client, receiver: Receiver, count: int, delays_s: int) -> list[Arrival]:
    """Set ``count`` timers with delays below ``delays_s`` and return their webhooks.

    Checks that no webhook is early, that every timer fires, and that none is sent twice.
    """
    earliest = {}
    for number in range(count):
        before = time.time()
        seconds = number % delays_s
        timer_id = client.set_timer(receiver.url("ok"), seconds)
        earliest[f"/ok/{timer_id}"] = before + seconds

    arrivals = receiver.wait_for(count)

    early = {a.path: earliest[a.path] - a.at for a in arrivals if a.at < earliest[a.path]}
    assert not early
    assert eventually(lambda: len(client.timers("fired")) == count)
    assert set(receiver.counts().values()) == {1}
    return arrivals


def cancel(client: Client, *timer_ids: int) -> None:
    """Cancel timers and check that they are gone."""
    for timer_id in timer_ids:
        assert client.request("DELETE", f"/timers/{timer_id}").status == 204
        assert client.request("GET", f"/timers/{timer_id}").status == 404


def assert_only_a_new_timer_fires(client: Client, receiver: Receiver) -> None:
    """Set one more timer, and check that its webhook is the only one."""
    client.set_timer(receiver.url("ok/kept"), 2)
    receiver.wait_for(1, "/ok/kept")
    assert len(receiver.arrivals()) == 1
