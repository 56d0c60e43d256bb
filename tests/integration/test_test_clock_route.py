"""The route that moves the test clock: it exists only where there is a test clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app import api, create_app
from chalicelib.bootstrap import Service, bootstrap
from chalicelib.domain.timer import Status
from chalicelib.rest.models import clock_advanced
from chalicelib.rest.openapi import document
from chalicelib.service.movable_clock import Advanced
from chalicelib.settings import load
from local.banner import banner
from local.gateway import Gateway
from tests.support.clock import START
from tests.support.document import codes, faults, resolved
from tests.support.wsgi import GatewayResponse, send_request, with_body

TEST_CLOCK = {"TIMERS_CLOCK": "test"}
ROUTE = "POST /_clock/advance"


class FakeClock:
    """Notes how far it is to be moved."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, int | None]] = []

    def __call__(self) -> float:
        return START

    def advance(self, tenant: str, delay_ms: int | None) -> Advanced:
        self.moves.append((tenant, delay_ms))
        return Advanced(now=START, results=[(1, Status.FIRED), (2, Status.FAILED)])


class ServiceOnFakeClock(Service):
    """A service with a test clock that is not moved."""

    clock = FakeClock()


@pytest.fixture
def clock() -> FakeClock:
    ServiceOnFakeClock.clock = FakeClock()
    return ServiceOnFakeClock.clock


def service(**variables: str) -> Service:
    made = bootstrap(load({"DATA_DIR": "/nonexistent", **variables}))
    return ServiceOnFakeClock(made.settings, made.engine)


def advance(gateway: Gateway, body: object) -> GatewayResponse:
    sent = with_body(json.dumps(body).encode())
    return send_request(gateway, "POST", "/_clock/advance", HTTP_HOST="localhost", **sent)


def named(gateway: Gateway) -> list[str]:
    routes: list[str] = send_request(gateway, "GET", "/", HTTP_HOST="localhost").document["routes"]
    return routes


@pytest.mark.parametrize("variables", [{}, {"TIMERS_AUTH": "keys"}, {"TIMERS_CLOCK": "real"}])
def test_without_a_test_clock_there_is_no_such_route(variables: dict[str, str]) -> None:
    gateway = Gateway(create_app(service(**variables)))
    refused = advance(gateway, {"delay": "3d"})
    assert refused.code == 404
    assert refused.document["type"] == "urn:webhook-timers:route-not-found"
    assert ROUTE not in named(gateway)
    assert "/_clock/advance" not in document(api.routes_of(load(variables)))["paths"]


def test_with_a_test_clock_the_route_is_named_and_documented(clock: FakeClock) -> None:
    gateway = Gateway(create_app(service(**TEST_CLOCK)))
    assert ROUTE in named(gateway)
    described = document(api.routes_of(load(TEST_CLOCK)))
    responses = described["paths"]["/_clock/advance"]["post"]["responses"]
    schema = responses["200"]["content"]["application/json"]["schema"]
    assert codes(described, resolved(described, responses["409"])) == {
        "clock-moving",
        "advance-unfinished",
    }
    answer = advance(gateway, {"delay": "3d"})
    assert answer.code == 200
    assert answer.document == {
        "now": "2027-01-15T08:00:00.000Z",
        "fired": [1],
        "failed": [2],
        "expired": [],
    }
    assert not faults(described, schema, answer.document)


@pytest.mark.parametrize(
    ("body", "delay_ms"),
    [
        ({"delay": "3d"}, 259_200_000),
        ({"delay": "PT0.5S"}, 500),
        ({"delay": "0s"}, 0),
        ({"until": "idle"}, None),
    ],
)
def test_the_clock_is_moved_as_far_as_the_request_says(
    clock: FakeClock, body: object, delay_ms: int | None
) -> None:
    assert advance(Gateway(create_app(service(**TEST_CLOCK))), body).code == 200
    assert clock.moves == [("default", delay_ms)]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "delay", "give either delay"),
        ({"delay": "1h", "until": "idle"}, "delay", "give either delay"),
        ({"delay": None}, "delay", "give either delay"),
        ({"delay": "1h90"}, "delay", '"1h90": 1h was read, then 90 has no unit'),
        ({"delay": "-1h"}, "delay", "cannot be negative"),
        ({"delay": 5}, "delay", "must be a string"),
        ({"delay": "3651d"}, "delay", "at most 10 years"),
        ({"until": "tomorrow"}, "until", "must be 'idle'"),
        ({"until": "idle", "untill": 1}, "untill", "did you mean until?"),
    ],
)
def test_a_request_that_is_not_valid_moves_nothing(
    clock: FakeClock, body: object, field: str, message: str
) -> None:
    refused = advance(Gateway(create_app(service(**TEST_CLOCK))), body)
    assert refused.code == 422
    found: dict[str, Any] = {each["field"]: each["message"] for each in refused.document["errors"]}
    assert message in found[field]
    assert clock.moves == []


def test_every_result_is_in_the_list_of_its_status() -> None:
    results = [(3, Status.EXPIRED), (2, Status.FIRED), (1, Status.FAILED), (2, Status.FIRED)]
    assert clock_advanced(Advanced(now=START + 1, results=results)) == {
        "now": "2027-01-15T08:00:00.001Z",
        "fired": [2, 2],
        "failed": [1],
        "expired": [3],
    }


def test_the_banner_warns_of_a_test_clock() -> None:
    assert "TEST CLOCK" in banner(load(TEST_CLOCK), f"in {Path('/timers')}")
    assert "CLOCK" not in banner(load({}), "in /timers")
