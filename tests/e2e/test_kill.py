"""Nothing is lost by ``kill -9`` of the server or of one process, at any time."""

from __future__ import annotations

import os
import signal
import threading
import time

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.server import Server
from tests.support.waiting import eventually


def test_a_thousand_pending_timers_survive_and_fire_once_each(
    server: Server, receiver: Receiver
) -> None:
    later = server.set_timers(500, receiver.url("ok/later"), 12)
    missed = server.set_timers(500, receiver.url("ok/missed"), 6)
    due_at = time.time() + 6
    server.kill()
    assert not receiver.arrivals(), "this machine is too slow for the times of this test"
    time.sleep(max(0.0, due_at + 0.1 - time.time()))

    server.start()

    receiver.wait_for(500, "/ok/missed")
    receiver.wait_for(500, "/ok/later")
    assert eventually(lambda: len(server.timers("fired")) == 1000)
    expected = {f"/ok/missed/{id_}" for id_ in missed} | {f"/ok/later/{id_}" for id_ in later}
    assert receiver.counts().keys() == expected
    assert set(receiver.counts().values()) == {1}


def test_acknowledged_timers_are_there_after_every_kill(server: Server) -> None:
    acknowledged: list[int] = []
    for _ in range(4):
        known = len(acknowledged)
        setters = [
            threading.Thread(target=_set_until_it_fails, args=(server, acknowledged))
            for _ in range(4)
        ]
        for setter in setters:
            setter.start()
        assert eventually(lambda wanted=known + 20: len(acknowledged) >= wanted)  # type: ignore[misc]
        server.kill()
        for setter in setters:
            setter.join()

        server.start()
        stored = server.timers()
        assert set(acknowledged) <= stored.keys()
        newest = server.set_timer("http://127.0.0.1:1/", 3600)
        assert newest > max(stored)
        acknowledged.append(newest)
    assert len(set(acknowledged)) == len(acknowledged)


def _set_until_it_fails(server: Server, acknowledged: list[int]) -> None:
    timer = {"seconds": 3600, "url": "http://127.0.0.1:1/"}
    while (response := server.try_request("POST", "/timers", timer)) is not None:
        if response.status == 201:
            acknowledged.append(response.json()["id"])


def test_webhooks_in_flight_are_sent_once_more(server: Server, receiver: Receiver) -> None:
    server.set_timers(20, receiver.url("held"), 0)
    first = receiver.wait_for(20)
    server.kill()
    receiver.release()

    server.start()

    # Within 15 s, so without waiting for the lease of the killed server's attempts, which is 30 s.
    arrivals = receiver.wait_for(40)
    assert eventually(lambda: len(server.timers("fired")) == 20)
    assert set(receiver.counts().values()) == {2}
    webhook_ids = {arrival.path: arrival.header("webhook-id") for arrival in first}
    assert all(webhook_ids[again.path] == again.header("webhook-id") for again in arrivals)


def test_no_child_outlives_the_supervisor(server: Server, receiver: Receiver) -> None:
    timer_id = server.set_timer(receiver.url("ok"), 3)
    assert len(server.processes()) >= 4

    server.signal(signal.SIGKILL)
    server.exit_code()

    assert eventually(lambda: not server.processes())
    server.start()
    receiver.wait_for(1)
    assert eventually(lambda: timer_id in server.timers("fired"))


def test_a_restart_at_once_waits_for_the_killed_server_s_children(server: Server) -> None:
    timer_id = server.set_timer("http://127.0.0.1:1/", 3600)
    assert eventually(lambda: server.output.count("listens on") == 1)

    server.signal(signal.SIGKILL)
    server.exit_code()
    server.launch()

    # Not "is healthy": for a short time a child of the killed server still responds.
    assert eventually(lambda: server.output.count("listens on") == 2), server.output
    assert server.time_left(timer_id) > 3500


def test_a_killed_dispatcher_is_started_again_and_nothing_is_lost(
    server: Server, receiver: Receiver
) -> None:
    server.set_timers(20, receiver.url("ok/later"), 4)
    server.set_timers(20, receiver.url("ok/meanwhile"), 1)
    killed = server.child("local.dispatcher")
    assert killed

    os.kill(killed.pid, signal.SIGKILL)
    timer = {"seconds": 0, "url": receiver.url("ok/after")}
    responses = [server.request("POST", "/timers", timer) for _ in range(10)]
    refused = [response for response in responses if response.status == 503]
    assert all(response.headers["Retry-After"] for response in refused)
    set_after = [response.json()["id"] for response in responses if response.status == 201]
    assert responses[-1].status == 201
    assert len(refused) + len(set_after) == 10

    started = server.child("local.dispatcher")
    assert started
    assert started.pid != killed.pid
    receiver.wait_for(20, "/ok/meanwhile")
    receiver.wait_for(20, "/ok/later")
    for timer_id in set_after:
        receiver.wait_for(1, f"/ok/after/{timer_id}")
    assert set(receiver.counts("/ok/later").values()) == {1}
    assert max(receiver.counts().values()) <= 2, "twice only what was in flight"


def test_requests_on_kept_connections_survive_a_killed_dispatcher(server: Server) -> None:
    for _ in range(3):
        dispatcher = server.child("local.dispatcher")
        assert dispatcher
        server.set_timers(8, "http://127.0.0.1:1/", 3600)  # every worker has open connections now
        os.kill(dispatcher.pid, signal.SIGKILL)

        statuses = [
            server.request(
                "POST", "/timers", {"seconds": 3600, "url": "http://127.0.0.1:1/"}
            ).status
            for _ in range(5)
        ]
        assert set(statuses) <= {201, 503}
        assert statuses[-1] == 201


def test_a_killed_api_worker_is_started_again(server: Server, receiver: Receiver) -> None:
    timer_id = server.set_timer(receiver.url("ok"), 2)
    workers = eventually(lambda: server.api_workers() if len(server.api_workers()) == 2 else [])
    killed = workers[0]

    os.kill(killed.pid, signal.SIGKILL)

    assert eventually(server.healthy)
    assert eventually(
        lambda: len({worker.pid for worker in server.api_workers()} - {killed.pid}) == 2
    )
    assert eventually(server.healthy)
    assert server.set_timer(receiver.url("ok"), 0) > timer_id
    receiver.wait_for(2)


def test_a_killed_api_is_started_again(make_server: MakeServer, receiver: Receiver) -> None:
    server = make_server(TIMERS_WORKERS="1")
    server.start()
    timer_id = server.set_timer(receiver.url("ok"), 1)
    killed = server.child("local.server")
    assert killed

    os.kill(killed.pid, signal.SIGKILL)

    receiver.wait_for(1)  # the dispatcher does not need the API
    server.wait_until_it_serves()
    assert eventually(lambda: (server.child("local.server") or killed).pid != killed.pid)
    assert eventually(lambda: len(server.api_workers()) == 1)
    server.wait_until_it_serves()
    assert server.set_timer(receiver.url("ok"), 0) > timer_id
    receiver.wait_for(2)


def test_an_api_that_hangs_is_started_again(server: Server) -> None:
    timer_id = server.set_timer("http://127.0.0.1:1/", 3600)
    assert eventually(lambda: "listens on" in server.output)
    hanging = server.api_workers()
    for worker in hanging:
        os.kill(worker.pid, signal.SIGSTOP)

    assert eventually(lambda: "the API does not respond" in server.output, 60)
    assert eventually(server.healthy, 60)

    assert server.time_left(timer_id) > 3000
    assert {worker.pid for worker in hanging}.isdisjoint(
        process.pid for process in server.processes()
    )
