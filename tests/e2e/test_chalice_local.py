"""Plain ``chalice local`` fires timers too, with autoreload and without."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.server import PROJECT, Server
from tests.support.waiting import eventually

CHALICE = (str(Path(sys.executable).with_name("chalice")), "local", "--port", "{port}")
FIXED = (*CHALICE, "--no-autoreload")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the service: autoreload sees every file of its project, tests included."""
    copy = tmp_path / "project"
    copy.mkdir()
    shutil.copy(PROJECT / "app.py", copy)
    for folder in (".chalice", "chalicelib", "infra", "local"):
        ignored = shutil.ignore_patterns("__pycache__", "deployments")
        shutil.copytree(PROJECT / folder, copy / folder, ignore=ignored)
    return copy


@pytest.fixture(params=[CHALICE, FIXED], ids=["autoreload", "no autoreload"])
def server(request: pytest.FixtureRequest, make_server: MakeServer, project: Path) -> Server:
    """Return ``chalice local``, serving."""
    # Its own bytecode must not look like an edited file to it.
    server = make_server(command=request.param, project=project, PYTHONDONTWRITEBYTECODE="1")
    server.start()
    return server


def test_timers_fire_and_restart_nothing(server: Server, receiver: Receiver) -> None:
    before = time.time()
    ids = server.set_timers(20, receiver.url("ok"), 2)

    assert server.time_left(ids[0]) in (1, 2)
    arrivals = receiver.wait_for(20)
    assert min(arrival.at for arrival in arrivals) >= before + 2
    assert eventually(lambda: len(server.timers("fired")) == 20)
    time.sleep(1.2)  # autoreload looks at the files once a second
    assert "Restarting" not in server.output
    assert set(receiver.counts().values()) == {1}
    assert server.time_left(ids[0]) == 0


def test_errors_have_a_body_and_a_status(server: Server) -> None:
    assert server.request("GET", "/nowhere").status in (403, 404)  # 403: Chalice's own gateway
    assert server.request("GET", "/timers/7abc").status == 404
    assert server.request("PUT", "/timers").status == 405
    assert server.request("POST", "/timers", {"seconds": -1, "url": "x"}).status == 422
    assert server.request("DELETE", "/timers").json() == {}


def test_a_second_start_on_the_same_folder_is_refused(
    make_server: MakeServer, project: Path
) -> None:
    server = make_server(command=FIXED, project=project)
    server.start()
    second = make_server(command=FIXED, project=project)
    second.launch()

    assert second.exit_code() != 0
    assert "another server" in second.output
    assert "DATA_DIR=" in second.output
    assert "Traceback" not in second.output
    assert server.set_timer("http://127.0.0.1:1/", 3600) == 1


def test_make_run_and_chalice_local_share_a_folder_one_after_the_other(
    make_server: MakeServer, project: Path, receiver: Receiver
) -> None:
    plain = make_server(command=FIXED, project=project)
    plain.start()
    timer_id = plain.set_timer(receiver.url("ok"), 3)
    plain.kill()

    offline = make_server()
    offline.start()
    assert offline.time_left(timer_id) <= 3
    receiver.wait_for(1, f"/ok/{timer_id}")
    assert offline.set_timer(receiver.url("ok"), 0) == timer_id + 1
