"""The whole life of a timer over HTTP, on the offline server."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.scenarios import set_and_fire
from tests.e2e.server import Server
from tests.support.waiting import eventually


def test_a_timer_is_set_counts_down_and_fires(server: Server, receiver: Receiver) -> None:
    before = time.time()
    timer_id = server.set_timer(receiver.url("ok/some%2Fpath?key=v"), 2)

    assert timer_id == 1
    assert server.time_left(timer_id) in (1, 2)
    (arrival,) = receiver.wait_for(1)
    assert arrival.request_line == f"POST /ok/some%2Fpath/{timer_id}?key=v HTTP/1.1"
    assert arrival.body == b""
    assert arrival.header("Content-Length") == "0"
    assert arrival.header("Content-Type") is None
    assert arrival.header("Transfer-Encoding") is None
    assert arrival.header("Host") == f"127.0.0.1:{receiver.port}"
    assert arrival.header("webhook-id")
    assert int(arrival.header("webhook-timestamp") or "") >= int(before) + 2
    assert arrival.at >= before + 2
    assert server.time_left(timer_id) == 0
    assert eventually(lambda: timer_id in server.timers("fired"))
    assert len(receiver.arrivals()) == 1


def test_no_webhook_is_early_nor_sent_twice(server: Server, receiver: Receiver) -> None:
    arrivals = set_and_fire(server, receiver, count=60, delays_s=3)
    assert len({arrival.header("webhook-id") for arrival in arrivals}) == 60


def test_a_cancelled_timer_does_not_fire(server: Server, receiver: Receiver) -> None:
    cancelled = server.set_timer(receiver.url("ok/cancelled"), 1)
    server.set_timer(receiver.url("ok/kept"), 2)

    assert server.request("DELETE", f"/timers/{cancelled}").status == 204
    assert server.request("GET", f"/timers/{cancelled}").status == 404
    receiver.wait_for(1, "/ok/kept")
    assert not receiver.arrivals("/ok/cancelled")


def test_a_timer_whose_webhook_is_in_flight_cannot_be_cancelled(
    server: Server, receiver: Receiver
) -> None:
    timer_id = server.set_timer(receiver.url("held"), 0)
    receiver.wait_for(1)

    def refusal() -> str:
        response = server.request("DELETE", f"/timers/{timer_id}")
        assert response.status == 409
        return str(response.json()["type"]).rpartition(":")[2]

    assert refusal() == "timer-in-flight"
    receiver.release()
    assert eventually(lambda: refusal() == "timer-settled")


def test_ids_are_not_used_again_after_a_purge_and_a_restart(
    server: Server, receiver: Receiver
) -> None:
    first = server.set_timers(10, receiver.url("ok"), 3600)

    response = server.request("DELETE", "/timers")
    assert (response.status, response.json()) == (200, {})
    assert server.timers() == {}
    server.kill()
    server.start()
    assert server.set_timer(receiver.url("ok"), 3600) > max(first)


@pytest.fixture
def impatient(make_server: MakeServer) -> Server:
    """Return a server that tries three times within half a second."""
    server = make_server(TIMERS_RETRY_DELAYS="0.2,0.2")
    server.start()
    return server


@pytest.mark.parametrize(
    ("responses", "calls", "status"),
    [
        ("500,200", 2, "fired"),
        ("503,302,204", 3, "fired"),
        ("410", 1, "failed"),
        ("500", 3, "failed"),
    ],
)
def test_a_webhook_is_retried_according_to_the_statuses_of_its_receiver(
    impatient: Server, receiver: Receiver, responses: str, calls: int, status: str
) -> None:
    timer_id = impatient.set_timer(receiver.url(f"statuses/{responses}"), 0)

    assert eventually(lambda: timer_id in impatient.timers(status)), impatient.timers()
    arrivals = receiver.arrivals()
    assert len(arrivals) == calls
    assert len({arrival.header("webhook-id") for arrival in arrivals}) == 1
    assert all(later.at - sooner.at >= 0.2 for sooner, later in pairwise(arrivals))
    assert impatient.timers(status)[timer_id]["attempts"] == calls
    assert impatient.time_left(timer_id) == 0


def test_a_receiver_that_is_not_there_is_a_failed_attempt(impatient: Server) -> None:
    # Port 1 of loopback: nothing listens there, and nothing that is started later will.
    timer_id = impatient.set_timer("http://127.0.0.1:1/", 0)

    assert eventually(lambda: timer_id in impatient.timers("failed"))
    assert impatient.timers()[timer_id]["attempts"] == 3


def test_hanging_receivers_delay_no_other_timer(server: Server, receiver: Receiver) -> None:
    server.set_timers(200, receiver.url("hang"), 3)
    timer_id = server.set_timer(receiver.url("ok"), 3)

    receiver.wait_for(1, "/ok")
    receiver.wait_for(200, "/hang")
    assert eventually(lambda: timer_id in server.timers("fired"))
    assert server.set_timer(receiver.url("ok"), 0) > timer_id
    receiver.wait_for(2, "/ok")
    waiting = server.timers("pending").values()
    assert len(waiting) == 200
    assert not any(timer["attempts"] for timer in waiting), "they were waited for"
