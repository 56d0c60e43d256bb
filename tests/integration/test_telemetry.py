"""The metrics and log lines of each request to the API's function on AWS."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from chalice.test import Client, HTTPResponse

from app import create_app
from chalicelib.aws.telemetry import NAMESPACE, LambdaTelemetry
from chalicelib.bootstrap import bootstrap
from chalicelib.service.ports import NoTelemetry, Page
from chalicelib.settings import load
from tests.support.moto_stage import MotoStage
from tests.support.service import service_on

SOON = b'{"seconds": 5, "url": "https://example.com"}'

Environment = dict[str, Any]
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def in_lambda(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Environment:
    """Return the environment of a Lambda.

    Each test has its own stage, because a process keeps the output of its first telemetry.
    """
    stage = request.node.name.replace("_", "")[-12:]
    environment = {
        "AWS_LAMBDA_FUNCTION_NAME": f"timers-{stage}",
        "TIMERS_STAGE": stage,
        "TIMERS_AUTH": "none",
    }
    # The telemetry of a Lambda configures the log of its process; the patch restores it.
    log = logging.getLogger("chalicelib")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(log, name, getattr(log, name))
    return environment


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return a function that returns the log lines since its last call."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def api_on(stage: MotoStage, environment: Environment) -> Client:
    """Return the API on the store of the AWS engine, with the telemetry of a Lambda."""
    telemetry = LambdaTelemetry(environment["TIMERS_STAGE"])
    store = stage.waking_store(telemetry.meter)
    return Client(create_app(service_on(store, stage.clock, telemetry=telemetry, **environment)))


def set_timer(api: Client, **headers: str) -> HTTPResponse:
    """Set a timer by a request."""
    sent = {"Content-Type": "application/json"} | headers
    return api.http.post("/timers", headers=sent, body=SOON)


def counted(lines: list[dict[str, Any]], environment: Environment) -> dict[str, Any]:
    """Return the values of each metric, as CloudWatch reads them from the log."""
    values: dict[str, Any] = {}
    for line in lines:
        for each in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert each["Namespace"] == NAMESPACE
            assert each["Dimensions"] == [["service"]]
            assert line["service"] == f"timers-{environment['TIMERS_STAGE']}"
            values |= {metric["Name"]: line[metric["Name"]] for metric in each["Metrics"]}
    return values


def test_a_timer_that_is_set_is_counted(
    stage: MotoStage, in_lambda: Environment, lines: Lines
) -> None:
    api = api_on(stage, in_lambda)
    assert set_timer(api).status_code == 201
    assert counted(lines(), in_lambda) == {"Created": [1]}
    assert api.http.get("/").status_code == 200
    assert counted(lines(), in_lambda) == {}


def test_a_timer_whose_wakeup_cannot_be_registered_counts_as_created_and_unarmed(
    stage: MotoStage, in_lambda: Environment, lines: Lines
) -> None:
    stage.fail("SendMessage")
    assert set_timer(api_on(stage, in_lambda)).status_code == 201
    assert counted(lines(), in_lambda) == {"Created": [1], "Unarmed": [1]}


class BrokenStore:
    """A store that raises an unexpected error."""

    def list(self, *_arguments: object, **_options: object) -> Page:
        raise RuntimeError("a fault of ours")


def test_log_lines_of_a_request_carry_its_id(
    stage: MotoStage, in_lambda: Environment, lines: Lines
) -> None:
    broken: Any = BrokenStore()
    telemetry = LambdaTelemetry(in_lambda["TIMERS_STAGE"])
    api = Client(create_app(service_on(broken, stage.clock, telemetry=telemetry, **in_lambda)))
    ids = []
    for _ in range(2):
        assert api.http.get("/timers").status_code == 500
        (line,) = lines()
        assert line["service"] == f"timers-{in_lambda['TIMERS_STAGE']}"
        assert "a fault of ours" in line["exception"]
        ids.append(line["request_id"])
    assert all(ids)
    assert ids[0] != ids[1]


def test_on_this_machine_nothing_is_counted(stage: MotoStage, lines: Lines) -> None:
    telemetry = bootstrap(load({})).telemetry
    assert isinstance(telemetry, NoTelemetry)
    api = Client(create_app(service_on(stage.waking_store(), stage.clock, telemetry=telemetry)))
    assert set_timer(api, Host="localhost").status_code == 201
    assert lines() == []
