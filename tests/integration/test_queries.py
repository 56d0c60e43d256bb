"""The query of every route, through the offline gateway: unknown and repeated parameters."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from app import api, create_app
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.settings import load
from local.gateway import Gateway
from tests.support.clock import ManualClock
from tests.support.factories import new_timer
from tests.support.service import service_on
from tests.support.wsgi import GatewayResponse, send_request, with_body

ROUTES = api.names(load({}))
OTHERS = [route for route in ROUTES if route != "GET /timers"]


@pytest.fixture
def store() -> Any:
    store = SQLiteTimerStore.in_memory()
    yield store
    store.close()


@pytest.fixture
def gateway(store: SQLiteTimerStore) -> Gateway:
    return Gateway(create_app(service_on(store, ManualClock())))


def ask(gateway: Gateway, route: str, query: str, body: bytes = b"{}") -> GatewayResponse:
    method, path = route.split()
    environ = with_body(body) if method in {"POST", "PATCH"} else {}
    path = path.replace("{timer_id}", "1")
    return send_request(gateway, method, path, HTTP_HOST="localhost", QUERY_STRING=query, **environ)


def faults(response: GatewayResponse) -> dict[str, str]:
    """Return the faults of a refused query by parameter."""
    assert response.code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.document["type"] == "urn:webhook-timers:invalid-request"
    return {fault["field"]: fault["message"] for fault in response.document["errors"]}


@pytest.mark.parametrize("route", OTHERS)
@pytest.mark.parametrize(("query", "name"), [("status=failed", "status"), ("=", ""), ("x", "x")])
def test_a_route_without_parameters_accepts_none(
    gateway: Gateway, route: str, query: str, name: str
) -> None:
    found = faults(ask(gateway, route, query))
    assert found == {name: "unknown parameter; none is known here"}


@pytest.mark.parametrize("route", ROUTES)
def test_a_query_that_is_refused_changes_nothing(
    gateway: Gateway, store: SQLiteTimerStore, route: str
) -> None:
    timer = store.create(new_timer())
    ask(gateway, route, "sync=1", b'{"seconds": 5, "url": "http://h"}')
    assert store.list(DEFAULT_TENANT, before=None, status=None, limit=9).timers == [timer]


@pytest.mark.parametrize("route", ROUTES)
def test_an_empty_query_is_no_query(gateway: Gateway, route: str) -> None:
    if route != "GET /openapi.json":  # the document has the word
        assert "parameter" not in str(ask(gateway, route, "").body)


@pytest.mark.parametrize(
    ("query", "name", "meant"),
    [
        ("state=failed", "state", "status"),
        ("Status=failed", "Status", "status"),
        ("statuses=failed", "statuses", "status"),
        ("Limit=5", "Limit", "limit"),
        ("cursors=MQ", "cursors", "cursor"),
    ],
)
def test_an_unknown_parameter_names_the_one_that_was_meant(
    gateway: Gateway, query: str, name: str, meant: str
) -> None:
    found = faults(ask(gateway, "GET /timers", query))
    assert found == {name: f"unknown parameter; did you mean {meant}?"}


@pytest.mark.parametrize(
    ("query", "name"), [("page=2", "page"), ("skip=7", "skip"), ("%ff=1", "\ufffd"), ("=", "")]
)
def test_an_unknown_parameter_names_the_known_ones(gateway: Gateway, query: str, name: str) -> None:
    found = faults(ask(gateway, "GET /timers", query))
    assert found == {
        name: "unknown parameter; known are "
        "limit, status, order, label, due_after, due_before, cursor"
    }


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&limit=1", "limit=&limit=2"])
def test_a_parameter_that_is_given_twice_is_refused(gateway: Gateway, query: str) -> None:
    found = faults(ask(gateway, "GET /timers", query))
    assert found == {"limit": "this parameter is given more than once"}


def test_every_fault_of_a_query_is_named_at_once(gateway: Gateway) -> None:
    found = faults(ask(gateway, "GET /timers", "page=1&status=x&limit=1&limit=2&cursor=-"))
    assert list(found) == ["limit", "status", "cursor", "page"]


def test_no_more_than_20_faults_of_a_query_are_named(gateway: Gateway) -> None:
    names = ("".join(letters) for letters in itertools.product("qxz", repeat=7))
    response = ask(gateway, "GET /timers", "&".join(f"{name}=1" for name in names))
    assert len(faults(response)) == 20
    assert len(response.body) < 8_000
