"""The defaults of a route: it needs a key, acts for one tenant, and returns errors as problems."""

from __future__ import annotations

import json

import pytest
from chalice.app import Chalice, Response

from chalicelib.domain import errors
from chalicelib.rest.list_query import ListTimers
from chalicelib.rest.reading import MAX_BODY_BYTES, ApiRequest
from chalicelib.rest.requests import MoveTimer
from chalicelib.rest.responses import HEALTHY
from chalicelib.rest.router import Router
from tests.support.routes import FakeService, app_of, call

JSON = {"content-type": "application/json"}
KEYS = FakeService(TIMERS_AUTH="keys")

api = Router[FakeService]()


def json_response(value: object) -> Response:
    return Response(json.dumps(value), {"Content-Type": "application/json"})


@api.get("/public", public=True, returns=HEALTHY)
def public(_service: FakeService, request: ApiRequest) -> Response:
    return json_response(request.caller)


@api.get("/open", public=True, any_site=True, returns=HEALTHY)
def open_to_all(_service: FakeService, _request: ApiRequest) -> Response:
    return json_response("open")


@api.get("/public/tenant", public=True, returns=HEALTHY)
def public_tenant(_service: FakeService, request: ApiRequest) -> Response:
    return json_response(request.tenant)


@api.get("/closed", returns=HEALTHY, query=ListTimers)
def closed(_service: FakeService, request: ApiRequest[ListTimers]) -> Response:
    return json_response([request.tenant, request.input.limit])


@api.patch("/closed/{timer_id}", returns=HEALTHY, body=MoveTimer)
def change(_service: FakeService, request: ApiRequest[MoveTimer]) -> Response:
    return json_response([request.tenant, request.timer_id, request.input.when.delay_ms])


@api.delete("/closed", returns=HEALTHY, raises=(errors.PurgeDisabled,))
def refuse(_service: FakeService, _request: ApiRequest) -> Response:
    raise errors.PurgeDisabled("not here")


@api.post("/closed", returns=HEALTHY)
def fail(_service: FakeService, _request: ApiRequest) -> Response:
    raise errors.InvalidTenant("no request can meet this error")


def guarded(app: Chalice) -> set[str]:
    return {
        f"{method} {path}"
        for path, entries in app.routes.items()
        for method, entry in entries.items()
        if entry.authorizer is not None
    }


def problem_of(response: dict[str, object]) -> str:
    code: str = json.loads(str(response["body"]))["type"]
    return code.removeprefix("urn:webhook-timers:")


def test_a_route_has_the_authorizer_unless_it_says_that_it_is_public() -> None:
    closed_routes = {"GET /closed", "PATCH /closed/{timer_id}", "DELETE /closed", "POST /closed"}
    assert guarded(app_of(api, KEYS)) == closed_routes


def test_without_keys_no_route_has_the_authorizer() -> None:
    assert guarded(app_of(api)) == set()


def test_every_route_reads_every_content_type() -> None:
    app = app_of(api)
    for entries in app.routes.values():
        assert {tuple(entry.content_types) for entry in entries.values()} == {("*/*",)}


def test_a_view_of_a_closed_route_gets_the_tenant_that_the_authorizer_found() -> None:
    response = call(app_of(api, KEYS), "GET", "/closed", tenant="acme")
    assert json.loads(response["body"]) == ["acme", 100]


def test_without_keys_the_tenant_is_the_default_one() -> None:
    assert json.loads(call(app_of(api), "GET", "/closed")["body"]) == ["default", 100]


@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", "/closed"), ("PATCH", "/closed/{timer_id}"), ("DELETE", "/closed")],
)
def test_a_closed_route_without_a_tenant_is_401_whatever_else_is_wrong(
    method: str, route: str
) -> None:
    response = call(app_of(api, KEYS), method, route, body=b"{", timer_id="x")
    assert (response["statusCode"], problem_of(response)) == (401, "unauthorized")


def test_a_public_route_needs_no_tenant_and_has_none() -> None:
    app = app_of(api, KEYS)
    assert json.loads(call(app, "GET", "/public", tenant="acme")["body"]) is None
    assert call(app, "GET", "/public/tenant", tenant="acme")["statusCode"] == 401


def test_a_body_is_read_before_the_id_in_the_path() -> None:
    app = app_of(api)
    good, bad = b'{"minutes": 2}', b"{"
    assert call(app, "PATCH", "/closed/{timer_id}", body=bad, timer_id="x")["statusCode"] == 400
    assert call(app, "PATCH", "/closed/{timer_id}", body=good, timer_id="x")["statusCode"] == 404
    response = call(app, "PATCH", "/closed/{timer_id}", body=good, headers=JSON, timer_id="7")
    assert json.loads(response["body"]) == ["default", 7, 120_000]


def test_a_body_that_is_too_large_is_refused_only_where_one_is_read() -> None:
    app, body = app_of(api), b" " * (MAX_BODY_BYTES + 1)
    assert call(app, "PATCH", "/closed/{timer_id}", body=body, timer_id="7")["statusCode"] == 413
    assert call(app, "GET", "/closed", body=body)["statusCode"] == 200


def test_an_error_of_a_view_becomes_a_problem() -> None:
    response = call(app_of(api), "DELETE", "/closed")
    assert (response["statusCode"], problem_of(response)) == (403, "purge-disabled")


def test_an_error_outside_the_catalogue_is_an_internal_error() -> None:
    response = call(app_of(api), "POST", "/closed")
    assert (response["statusCode"], problem_of(response)) == (500, "internal")
    assert "no request" not in response["body"]


def test_a_cross_site_request_is_refused_before_its_method_is_looked_at() -> None:
    response = call(app_of(api), "PUT", "/closed", headers={"host": "evil.example"})
    assert (response["statusCode"], problem_of(response)) == (403, "foreign-caller")


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"host": ""}])
def test_a_route_for_any_site_is_answered_under_any_host(headers: dict[str, str]) -> None:
    foreign = headers | {"origin": "null", "sec-fetch-site": "cross-site"}
    assert call(app_of(api), "GET", "/open", headers=foreign)["statusCode"] == 200
    assert call(app_of(api), "HEAD", "/open", headers=foreign)["statusCode"] == 200
    assert call(app_of(api), "POST", "/open", headers=foreign)["statusCode"] == 403


def test_head_is_get_without_the_body() -> None:
    response = call(app_of(api, KEYS), "HEAD", "/closed", tenant="acme")
    assert (response["statusCode"], response["body"]) == (200, "")
    assert call(app_of(api, KEYS), "HEAD", "/closed")["statusCode"] == 401
    refused = call(app_of(api), "HEAD", "/closed/{timer_id}", timer_id="7")
    assert (refused["statusCode"], refused["headers"]["Allow"]) == (405, "PATCH")


def test_every_request_is_observed() -> None:
    service = FakeService()
    app = app_of(api, service)
    call(app, "GET", "/public")
    call(app, "PUT", "/public")
    assert len(service.observed) == 2


def test_a_path_has_each_method_once() -> None:
    twice = Router[FakeService]()
    for _ in range(2):
        twice.get("/", returns=HEALTHY)(public)
    with pytest.raises(ValueError, match="Duplicate method"):
        app_of(twice)
