"""Stopping the server finishes calls in flight and keeps pending timers."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.server import Server
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGTERM, True)],
    ids=["kill", "ctrl-c", "service manager"],
)
def test_a_webhook_in_flight_is_finished_and_not_sent_again(
    server: Server, receiver: Receiver, number: int, *, group: bool
) -> None:
    in_flight = server.set_timer(receiver.url("held"), 0)
    pending = server.set_timer(receiver.url("ok"), 3)
    receiver.wait_for(1, "/held")

    server.signal(number, group=group)
    time.sleep(0.5)
    receiver.release()

    assert server.exit_code() == 0
    assert eventually(lambda: not server.processes())
    assert "Traceback" not in server.output
    server.start()
    assert server.timers("fired").keys() >= {in_flight}
    receiver.wait_for(1, f"/ok/{pending}")
    assert set(receiver.counts().values()) == {1}


def test_a_hanging_receiver_does_not_delay_the_stop(
    make_server: MakeServer, receiver: Receiver
) -> None:
    # One worker: once it responds, no other is still starting, which could not hear the signal.
    server = make_server(TIMERS_WORKERS="1")
    server.start()
    timer_id = server.set_timer(receiver.url("hang"), 0)
    receiver.wait_for(1)

    server.signal(signal.SIGTERM)

    assert server.exit_code() == 0
    assert "killed" not in server.output
    server.start()
    assert timer_id in server.timers("pending")
    receiver.wait_for(2)


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGINT, True)],
    ids=["kill", "ctrl-c"],
)
def test_a_server_that_has_nothing_in_flight_ends_by_itself(
    make_server: MakeServer, number: int, *, group: bool
) -> None:
    # One worker, as above.
    server = make_server(TIMERS_WORKERS="1")
    server.start()
    server.set_timer("http://127.0.0.1:1/", 3600)

    server.signal(number, group=group)

    assert server.exit_code() == 0
    assert "killed" not in server.output
