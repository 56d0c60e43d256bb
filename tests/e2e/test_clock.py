"""A client's own test on ``make run CLOCK=test``: days pass in less than a second."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.server import Server
from tests.support.waiting import eventually

DAY_S = 86_400


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    server = make_server(TIMERS_CLOCK="test")
    server.start()
    return server


def advance(server: Server, **how_far: str) -> dict[str, Any]:
    response = server.request("POST", "/_clock/advance", how_far)
    assert response.status == 200, response
    body = response.json()
    assert body.keys() == {"now", "fired", "failed", "expired"}
    return dict(body)


def seconds(moment: str) -> float:
    return datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def test_three_days_with_retries_take_less_than_a_second(
    server: Server, receiver: Receiver
) -> None:
    retried = server.set_timer(receiver.url("statuses/500,500,200/retried"), 1_800)
    ok = server.set_timer(receiver.url("ok"), 2 * DAY_S)
    gone = server.set_timer(receiver.url("statuses/410/gone"), 3_600)
    before = seconds(server.timers()[ok]["created_at"])

    started = time.monotonic()
    answer = advance(server, delay="3d")
    took_s = time.monotonic() - started

    assert took_s < 1
    assert before + 3 * DAY_S <= seconds(answer["now"]) < before + 3 * DAY_S + 60
    assert (answer["fired"], answer["failed"], answer["expired"]) == ([retried, ok], [gone], [])
    arrivals = receiver.arrivals()
    assert [arrival.header("timer-id") for arrival in arrivals] == [
        *(str(retried) for _ in range(3)),
        str(gone),
        str(ok),
    ]
    assert max(int(arrival.header("timer-lateness-ms") or "") for arrival in arrivals) < 100
    # Not the time of the test clock: receivers refuse a signature of another day.
    assert all(abs(int(a.header("webhook-timestamp") or "") - time.time()) < 60 for a in arrivals)


def test_every_worker_has_the_new_time_at_once(server: Server, receiver: Receiver) -> None:
    timer_id = server.set_timer(receiver.url("ok"), 10 * DAY_S)
    for day in range(1, 10):
        advance(server, delay="1d")
        with ThreadPoolExecutor(8) as threads:  # each with a connection, so on both workers
            left = set(threads.map(lambda _: server.time_left(timer_id), range(16)))
        assert max(left) <= (10 - day) * DAY_S
        assert min(left) > (10 - day) * DAY_S - 60
    assert advance(server, until="idle")["fired"] == [timer_id]


def test_a_receiver_sees_the_time_at_which_it_is_called(server: Server, receiver: Receiver) -> None:
    held = server.set_timer(receiver.url("held"), DAY_S)
    later = server.set_timer(receiver.url("ok"), 2 * DAY_S)
    with ThreadPoolExecutor(1) as threads:
        advancing = threads.submit(advance, server, delay="3d")
        receiver.wait_for(1, "/held")
        # The clock stands at the due time of the first timer.
        # On a busy machine the second was set much later.
        due = {timer_id: seconds(timer["due_at"]) for timer_id, timer in server.timers().items()}
        assert server.time_left(later) == math.ceil(round(due[later] - due[held], 3))
        second = server.request("POST", "/_clock/advance", {"delay": "1d"})
        assert (second.status, second.json()["type"]) == (409, "urn:webhook-timers:clock-moving")
        receiver.release()
        assert advancing.result()["fired"] == [held, later]


def test_a_restart_keeps_the_clock_and_it_runs_on(server: Server, receiver: Receiver) -> None:
    advance(server, delay="3d")
    timer_id = server.set_timer(receiver.url("ok"), 3_600)
    server.kill()
    server.start()
    assert 3_540 < server.time_left(timer_id) <= 3_600
    assert advance(server, delay="1h")["fired"] == [timer_id]
    # Between advances a timer fires by itself.
    server.set_timer(receiver.url("ok/soon"), 1)
    receiver.wait_for(1, "/ok/soon")


def test_a_dispatcher_that_is_killed_during_an_advance_goes_on_from_there(
    server: Server, receiver: Receiver
) -> None:
    held = server.set_timer(receiver.url("held"), DAY_S)
    later = server.set_timer(receiver.url("ok"), 2 * DAY_S)
    with ThreadPoolExecutor(1) as threads:
        advancing = threads.submit(server.try_request, "POST", "/_clock/advance", {"delay": "3d"})
        receiver.wait_for(1, "/held")
        server.kill()
        assert advancing.result() is None
    receiver.release()
    server.start()
    receiver.wait_for(2, "/held")  # at least once: its first answer was never seen
    assert eventually(lambda: held in server.timers("fired"))
    assert DAY_S - 60 < server.time_left(later) <= DAY_S
    assert advance(server, until="idle")["fired"] == [later]


def test_a_moved_clock_needs_a_test_clock(server: Server, make_server: MakeServer) -> None:
    advance(server, delay="1ms")
    server.kill()
    real = make_server()
    real.launch()
    assert real.exit_code() > 0
    assert "was moved, so it works only with a test clock (make run CLOCK=test)" in real.output
    assert len(real.output.splitlines()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"TIMERS_AUTH": "keys"},
        {"TIMERS_ENGINE": "aws"},
        {"AWS_LAMBDA_FUNCTION_NAME": "timers-dev"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_test_clock_is_refused_with_keys_on_aws_and_in_a_lambda(
    make_server: MakeServer, settings: dict[str, str]
) -> None:
    server = make_server(TIMERS_CLOCK="test", **settings)
    server.launch()
    assert server.exit_code() > 0
    (line,) = server.output.splitlines()
    assert line.startswith("webhook-timers: TIMERS_CLOCK=test: ")


def test_without_a_test_clock_there_is_no_route(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    response = server.request("POST", "/_clock/advance", {"delay": "3d"})
    assert (response.status, response.json()["type"]) == (404, "urn:webhook-timers:route-not-found")
    assert not any("_clock" in route for route in server.request("GET", "/").json()["routes"])
    assert "CLOCK" not in server.output


def test_now_is_in_the_year_of_the_timer(server: Server, receiver: Receiver) -> None:
    server.set_timer(receiver.url("ok"), 3_000 * DAY_S)
    now = seconds(advance(server, until="idle")["now"])
    expected = datetime.now(timezone.utc).timestamp() + 3_000 * DAY_S
    assert abs(now - expected) < 60
