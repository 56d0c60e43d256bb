"""The aws engine on this machine: the offline server, its pump, and an emulator of AWS."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from local.emulator.ministack import Emulator
from tests.e2e.receiver import Receiver
from tests.e2e.scenarios import assert_only_a_new_timer_fires, cancel, set_and_fire
from tests.e2e.server import Server
from tests.e2e_aws.conftest import MakeAwsServer
from tests.e2e_aws.stage import Stage
from tests.support.waiting import eventually

NEAR_S = 4
GRACE_AND_TICK_S = 7.0
"""How late a timer may be that only the sweeper finds."""

SLACK_S = 15.0
CHALICE_LOCAL = (
    str(Path(sys.executable).with_name("chalice")),
    "local",
    "--no-autoreload",
    "--port",
    "{port}",
)


def test_near_timers_fire_once_and_never_early(server: Server, receiver: Receiver) -> None:
    set_and_fire(server, receiver, count=30, delays_s=4)
    assert server.time_left(min(server.timers())) == 0


def test_a_far_timer_gets_a_schedule_and_fires(
    server: Server, receiver: Receiver, stage: Stage
) -> None:
    before = time.time()
    timer_id = server.set_timer(receiver.url("ok"), 8)

    assert (stage.schedules(), stage.messages()) == (1, 0)
    (arrival,) = receiver.wait_for(1, patience_s=8 + GRACE_AND_TICK_S + SLACK_S)
    assert before + 8 <= arrival.at
    assert eventually(lambda: timer_id in server.timers("fired"))


def test_a_timer_whose_wakeup_is_lost_is_swept_up(
    server: Server, receiver: Receiver, stage: Stage
) -> None:
    before = time.time()
    timer_id = server.set_timer(receiver.url("ok"), NEAR_S)
    assert stage.messages() == 1
    stage.lose_messages()

    (arrival,) = receiver.wait_for(1, patience_s=NEAR_S + GRACE_AND_TICK_S + SLACK_S)
    assert before + NEAR_S <= arrival.at
    assert eventually(lambda: timer_id in server.timers("fired"))


def test_cancelled_timers_do_not_fire_and_leave_no_schedule(
    server: Server, receiver: Receiver, stage: Stage
) -> None:
    near = server.set_timer(receiver.url("ok/near"), 1)
    far = server.set_timer(receiver.url("ok/far"), 3600)

    cancel(server, near, far)
    assert stage.schedules() == 0
    assert_only_a_new_timer_fires(server, receiver)


def test_timers_are_listed_and_purged(server: Server, receiver: Receiver) -> None:
    ids = server.set_timers(30, receiver.url("ok"), 3600)

    assert server.timers("pending").keys() == set(ids)
    assert 3598 <= server.time_left(ids[0]) <= 3600
    response = server.request("DELETE", "/timers")
    assert (response.status, response.json()) == (200, {})
    assert server.timers() == {}
    assert server.set_timer(receiver.url("ok"), 3600) > max(ids)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_timers_outlive_the_server(
    server: Server, receiver: Receiver, stage: Stage, end: str
) -> None:
    missed = server.set_timer(receiver.url("ok/missed"), 1)
    pending = server.set_timer(receiver.url("ok/pending"), 5)
    if end == "stop":
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    server.kill()
    time.sleep(1)

    server.start()

    receiver.wait_for(1, f"/ok/missed/{missed}", patience_s=40)  # received by who was killed
    receiver.wait_for(1, f"/ok/pending/{pending}")
    assert eventually(lambda: server.timers("fired").keys() == {missed, pending})


def test_the_pump_is_started_again_when_it_dies(server: Server, receiver: Receiver) -> None:
    pump = server.child("local.pump")
    assert pump
    os.kill(pump.pid, signal.SIGKILL)
    server.set_timer(receiver.url("ok"), 2)

    receiver.wait_for(1, patience_s=40)


def test_foreign_messages_are_dropped_and_delay_no_timer(
    server: Server, receiver: Receiver, stage: Stage
) -> None:
    gone = {"wakeup": [1, "default", 4_711, 1, 0]}
    stage.put(" ", "hello", "{", "[" * 5_000, '{"id": 1}', json.dumps(gone))

    server.set_timer(receiver.url("ok"), 0)

    receiver.wait_for(1)
    assert eventually(lambda: stage.messages() == 0)
    assert "a message is dropped" in server.output
    assert "Traceback" not in server.output


def test_hanging_receivers_delay_no_other_timer(server: Server, receiver: Receiver) -> None:
    server.set_timers(50, receiver.url("hang"), 2)
    server.set_timer(receiver.url("ok"), 2)

    receiver.wait_for(1, "/ok")
    waiting = server.timers("pending").values()
    assert len(waiting) >= 50
    assert not any(timer["attempts"] for timer in waiting), "they were waited for"


def test_timers_outlive_a_stop_of_the_emulator(
    own_emulator: Emulator, make_aws_server: MakeAwsServer, receiver: Receiver
) -> None:
    server = make_aws_server(Stage(own_emulator.address, "dev"))
    server.start()
    timer_id = server.set_timer(receiver.url("ok"), 4)

    own_emulator.stop()
    response = server.request("POST", "/timers", {"seconds": 1, "url": receiver.url("lost")})
    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0
    own_emulator.start()

    receiver.wait_for(1, f"/ok/{timer_id}")
    assert server.set_timer(receiver.url("ok"), 0) > timer_id
    receiver.wait_for(2, "/ok")
    assert not receiver.arrivals("/lost")


def test_resources_that_the_emulator_lost_are_made_again(
    own_emulator: Emulator, make_aws_server: MakeAwsServer, receiver: Receiver, tmp_path: Path
) -> None:
    server = make_aws_server(Stage(own_emulator.address, "dev"))
    server.start()
    own_emulator.stop()
    port = int(own_emulator.address.rpartition(":")[2])
    empty = Emulator(tmp_path / "empty", port)
    empty.start()
    try:
        new = {"seconds": 0, "url": receiver.url("ok")}
        assert eventually(lambda: server.request("POST", "/timers", new).status == 201)
        receiver.wait_for(1)
    finally:
        empty.stop()


def test_chalice_local_fires_too(
    make_aws_server: MakeAwsServer, stage: Stage, receiver: Receiver
) -> None:
    server = make_aws_server(stage, command=CHALICE_LOCAL, PYTHONDONTWRITEBYTECODE="1")
    server.start()
    before = time.time()

    server.set_timer(receiver.url("ok"), 2)

    (arrival,) = receiver.wait_for(1)
    assert arrival.at >= before + 2


def refusal(server: Server) -> str:
    """Start ``server``, which must fail; return the one line it printed."""
    server.launch()
    assert server.exit_code() != 0
    lines = [line for line in server.output.splitlines() if "webhook-timers: " in line]
    assert len(lines) == 1, server.output
    assert "Traceback" not in server.output
    return lines[0]


@pytest.mark.parametrize("command", [None, CHALICE_LOCAL], ids=["make run", "chalice local"])
@pytest.mark.parametrize("address", ["", "https://sqs.eu-central-1.amazonaws.com", "localhost:1"])
def test_aws_itself_is_never_reached_from_this_machine(
    make_aws_server: MakeAwsServer, command: tuple[str, ...] | None, address: str
) -> None:
    options = {"command": command} if command else {}
    server = make_aws_server(Stage("", "dev"), **options, AWS_ENDPOINT_URL=address)

    assert "AWS_ENDPOINT_URL" in refusal(server)


def test_an_emulator_that_is_not_there_is_named(make_aws_server: MakeAwsServer) -> None:
    line = refusal(make_aws_server(Stage("http://127.0.0.1:1", "dev")))

    assert "http://127.0.0.1:1" in line
    assert "make emulator" in line
