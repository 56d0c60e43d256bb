"""What the API's function leaves behind on AWS: metrics and log lines of each request."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chalice.test import Client, HTTPResponse

from app import app
from chalicelib import wiring
from chalicelib.aws.telemetry import NAMESPACE
from chalicelib.service.timers import Timers
from chalicelib.settings import load
from tests.support.cloud import Cloud

SOON = b'{"seconds": 5, "url": "https://example.com"}'

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Be a Lambda, of a stage of its own: a process logs to where its first telemetry did."""
    stage = request.node.name.replace("_", "")[-12:]
    environment = {
        "AWS_LAMBDA_FUNCTION_NAME": f"timers-{stage}",
        "TIMERS_STAGE": stage,
        "TIMERS_AUTH": "none",
    }
    log = logging.getLogger("chalicelib")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(log, name, getattr(log, name))
    monkeypatch.setattr(wiring, "settings", lambda: load(environment))
    wiring._telemetry.cache_clear()
    yield stage
    wiring._telemetry.cache_clear()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return what returns the lines that went to the log since the last time."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def set_timer(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> HTTPResponse:
    """Ask for a timer as a caller does."""
    scheduling = Timers(cloud.store, cloud.waker, cloud.clock, meter=wiring.meter())
    monkeypatch.setattr(wiring, "scheduling", lambda: scheduling)
    headers = {"Content-Type": "application/json"}
    return Client(app).http.post("/timers", headers=headers, body=SOON)


def counted(lines: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    """Return the values of each metric, as CloudWatch reads them from the log."""
    values: dict[str, Any] = {}
    for line in lines:
        for each in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert each["Namespace"] == NAMESPACE
            assert each["Dimensions"] == [["service"]]
            assert line["service"] == f"timers-{stage}"
            values |= {metric["Name"]: line[metric["Name"]] for metric in each["Metrics"]}
    return values


def test_a_timer_that_is_set_is_counted(
    cloud: Cloud, stage: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set_timer(cloud, monkeypatch).status_code == 201
    assert counted(lines(), stage) == {"Created": [1]}
    assert Client(app).http.get("/").status_code == 200
    assert counted(lines(), stage) == {}


def test_a_timer_whose_wakeup_cannot_be_registered_is_counted_twice(
    cloud: Cloud, stage: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.fail("SendMessage")
    assert set_timer(cloud, monkeypatch).status_code == 201
    assert counted(lines(), stage) == {"Created": [1], "Unarmed": [1]}


def test_what_a_request_logs_carries_its_id(
    cloud: Cloud, stage: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Timers:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(wiring, "scheduling", broken)
    ids = []
    for _ in range(2):
        assert Client(app).http.get("/timers").status_code == 500
        (line,) = lines()
        assert line["service"] == f"timers-{stage}"
        assert "a fault of ours" in line["exception"]
        ids.append(line["request_id"])
    assert all(ids)
    assert ids[0] != ids[1]


def test_on_this_machine_nothing_is_counted(
    cloud: Cloud, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "settings", lambda: load({"TIMERS_ALLOWED_HOSTS": ""}))
    monkeypatch.setattr(wiring, "_telemetry", lambda: pytest.fail("telemetry was made"))
    headers = {"Content-Type": "application/json", "Host": "localhost"}
    scheduling = Timers(cloud.store, cloud.waker, cloud.clock, meter=wiring.meter())
    monkeypatch.setattr(wiring, "scheduling", lambda: scheduling)
    assert Client(app).http.post("/timers", headers=headers, body=SOON).status_code == 201
    assert lines() == []
