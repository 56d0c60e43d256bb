"""A receiver that fails half the time, and a server that is killed: no timer is lost."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.server import Server
from tests.support.waiting import eventually

TIMERS = 1_000
KILLS = 3
ATTEMPTS = 5
PATIENCE_S = 60.0


def attempts_of(server: Server, ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the recorded attempts of each timer."""
    with ThreadPoolExecutor(4) as threads:
        responses = threads.map(lambda id_: server.request("GET", f"/timers/{id_}/attempts"), ids)
        return {id_: response.json() for id_, response in zip(ids, responses, strict=True)}


def test_every_timer_is_received_or_failed_by_policy_with_its_attempts_recorded(
    make_server: MakeServer, receiver: Receiver
) -> None:
    server = make_server(TIMERS_RETRY_DELAYS=",".join(["0.2"] * (ATTEMPTS - 1)))
    server.start()
    ids = server.set_timers(TIMERS, receiver.url("half"), 1)
    for kill in range(1, KILLS + 1):
        receiver.wait_for(kill * TIMERS // 4)
        server.kill()
        server.start()

    assert eventually(lambda: not server.timers("pending"), PATIENCE_S)

    timers, recorded = server.timers(), attempts_of(server, ids)
    assert timers.keys() == set(ids)
    received = receiver.counts()
    for id_ in ids:
        statuses = [attempt["status"] for attempt in recorded[id_]]
        if timers[id_]["status"] == "fired":
            assert statuses == [500] * (len(statuses) - 1) + [200]
        else:
            assert timers[id_]["status"] == "failed"
            assert statuses == [500] * ATTEMPTS
        # What a kill kept from being recorded was called again.
        assert 0 <= received[f"/half/{id_}"] - len(statuses) <= KILLS
        assert timers[id_]["attempts"] == len(statuses)
    ends = Counter(timer["status"] for timer in timers.values())
    assert ends["failed"] > 0
    assert ends["fired"] > ends["failed"]
