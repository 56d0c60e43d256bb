"""The offline gateway runs a route's authorizer as API Gateway does."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chalice.app import AuthRequest, AuthResponse, AuthRoute, Chalice, Response

from chalicelib.domain.errors import Unavailable
from chalicelib.functions import DENY_ALL
from chalicelib.rest.problems import replace_chalice_errors
from chalicelib.rest.reading import too_large
from local.authorizers import MAX_POLICIES_KEPT, MAX_TOKEN_CHARACTERS
from local.gateway import Gateway
from local.http_message import HttpRequest
from tests.support.clock import ManualClock
from tests.support.wsgi import GatewayResponse, send_request

TTL_S = 60


def authorizer_context(app: Chalice) -> Response:
    """Return the context that the authorizer gave the current request."""
    request: Any = app.current_request
    text = json.dumps(request.context.get("authorizer"))
    return Response(text, {"Content-Type": "application/json"})


class FakeApp:
    """An app with guarded routes and an open one. A test decides what its authorizer returns."""

    def __init__(self) -> None:
        self.authorizer_calls: list[AuthRequest] = []
        self.unavailable = False
        self.takes_s = 0
        self.revoked: set[str] = set()
        self.routes: list[Any] = ["*"]
        self.clock = ManualClock(1_000.0)  # the gateway counts in seconds
        self.gateway = Gateway(self._app(), self.clock)

    def _app(self) -> Chalice:
        app = Chalice("app", configure_logs=False)
        app.api.binary_types = []
        app.register_middleware(replace_chalice_errors, "http")

        @app.authorizer(name="authorizer", ttl_seconds=TTL_S)
        def authorizer(request: AuthRequest) -> AuthResponse | dict[str, Any]:
            self.authorizer_calls.append(request)
            self.clock.now += self.takes_s
            if self.unavailable:
                raise Unavailable("The keys are away.", retry_after=7)
            if request.token in self.revoked or not request.token.startswith("good"):
                return DENY_ALL
            return AuthResponse(self.routes, request.token, {"tenant": request.token})

        @app.route("/open", methods=["GET"])
        def open_to_all() -> Response:
            return authorizer_context(app)

        def guarded(**_names: str) -> Response:
            return authorizer_context(app)

        for path in ("/closed", "/closed/{name}"):
            app.route(path, methods=["GET", "POST"], authorizer=authorizer, content_types=["*/*"])(
                guarded
            )
        return app

    def request(
        self, token: str | None, path: str = "/closed", method: str = "GET"
    ) -> GatewayResponse:
        return send_request(self.gateway, method, path, **sending(token))


def sending(token: str | None) -> dict[str, str]:
    return {} if token is None else {"HTTP_AUTHORIZATION": token}


@pytest.fixture
def app() -> FakeApp:
    return FakeApp()


def assert_refused(response: GatewayResponse) -> None:
    assert response.code == 401
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.document["type"] == "urn:webhook-timers:unauthorized"


def test_an_open_route_does_not_call_the_authorizer(app: FakeApp) -> None:
    for token in (None, "good", "bad"):
        assert app.request(token, "/open").document is None
    assert app.authorizer_calls == []


@pytest.mark.parametrize("token", [None, ""])
def test_without_the_header_the_authorizer_is_not_called(app: FakeApp, token: str | None) -> None:
    assert_refused(app.request(token))
    assert app.authorizer_calls == []


def test_a_header_longer_than_any_key_is_refused_without_the_authorizer(app: FakeApp) -> None:
    longest = "good".ljust(MAX_TOKEN_CHARACTERS, "-")
    assert app.request(longest).code == 200
    assert_refused(app.request(longest + "-"))
    assert_refused(app.request("good" + " " * 8_000))
    assert [call.token for call in app.authorizer_calls] == [longest]


def test_the_tenant_that_the_authorizer_returns_reaches_the_view(app: FakeApp) -> None:
    assert app.request("good").document == {"tenant": "good", "principalId": "good"}
    (call,) = app.authorizer_calls
    assert (call.auth_type, call.token) == ("TOKEN", "good")
    assert call.method_arn.startswith("arn:aws:execute-api:")
    assert call.method_arn.endswith("/GET/closed")


def test_an_unknown_token_is_refused_before_a_fault_of_the_body_is_named(app: FakeApp) -> None:
    request = HttpRequest("POST", "/closed", "", {"authorization": "bad"}, "", fault=too_large())
    assert app.gateway.respond(request).status == 401
    request.headers["authorization"] = "good"
    assert app.gateway.respond(request).status == 413


def test_the_gateway_knows_a_caller_once_the_key_was_looked_up(app: FakeApp) -> None:
    def request(token: str) -> HttpRequest:
        return HttpRequest("HEAD", "/closed", "", {"authorization": token}, "")

    assert not app.gateway.knows_caller(request("good"))
    assert app.gateway.admits(request("good"))
    assert app.gateway.knows_caller(request("good"))
    assert not app.gateway.admits(request("bad"))
    assert not app.gateway.knows_caller(request("bad")), "a denial is not kept"
    assert app.gateway.knows_caller(request(""))


def test_an_unavailable_authorizer_is_503_and_is_called_again(app: FakeApp) -> None:
    app.unavailable = True
    response = app.request("good")
    assert (response.code, response.headers["Retry-After"]) == (503, "7")
    app.unavailable = False
    assert app.request("good").code == 200


def test_a_policy_is_cached_for_all_routes_until_its_ttl_is_over(app: FakeApp) -> None:
    app.request("good")
    app.revoked.add("good")
    app.unavailable = True
    app.clock.now += TTL_S - 0.001
    for path in ("/closed", "/closed/7"):
        for method in ("GET", "POST"):
            assert app.request("good", path, method).document["tenant"] == "good"
    assert len(app.authorizer_calls) == 1

    app.unavailable = False
    app.clock.now += 0.001
    assert_refused(app.request("good"))


def test_use_does_not_cache_a_policy_longer(app: FakeApp) -> None:
    for _ in range(TTL_S):
        assert app.request("good").code == 200
        app.clock.now += 1
    app.revoked.add("good")
    assert_refused(app.request("good"))


def test_the_ttl_of_a_policy_starts_when_the_authorizer_is_called(app: FakeApp) -> None:
    app.takes_s = 10
    app.request("good")
    app.revoked.add("good")
    app.clock.now += TTL_S - 10
    assert_refused(app.request("good"))


def test_every_token_has_its_own_policy(app: FakeApp) -> None:
    for token in ("good-1", "good-2", "good-1", "good-2", "Good-1"):
        response = app.request(token)
        assert response.code == 401 or response.document["tenant"] == token
    assert [call.token for call in app.authorizer_calls] == ["good-1", "good-2", "Good-1"]


def test_the_cache_is_bounded_and_drops_the_least_recently_used_policy(app: FakeApp) -> None:
    for number in range(MAX_POLICIES_KEPT):
        app.request(f"good-{number}")
    app.request("good-0")
    app.request("good-new")
    app.authorizer_calls.clear()
    for token in ("good-0", "good-new", "good-2", "good-1"):
        app.request(token)
    assert [call.token for call in app.authorizer_calls] == ["good-1"]


def test_refusals_take_no_place_in_the_cache(app: FakeApp) -> None:
    app.request("good")
    for number in range(MAX_POLICIES_KEPT + 1):
        app.request(f"bad-{number}")
    app.authorizer_calls.clear()
    assert app.request("good").code == 200
    assert app.authorizer_calls == []


def test_a_refusal_is_not_cached(app: FakeApp) -> None:
    app.revoked.add("good")
    assert_refused(app.request("good"))
    app.revoked.clear()
    assert app.request("good").code == 200


def test_a_policy_opens_only_the_routes_it_allows(app: FakeApp) -> None:
    app.routes = [AuthRoute("/closed", ["GET"])]
    assert app.request("good").code == 200
    assert_refused(app.request("good", method="POST"))
    assert_refused(app.request("good", "/closed/7"))
    app.routes = []
    assert_refused(app.request("good-2"))


def test_a_wrong_method_is_405_and_an_unknown_path_404_with_or_without_a_key(app: FakeApp) -> None:
    for token in (None, "good", "bad"):
        assert app.request(token, method="PUT").code == 405
        assert app.request(token, "/nowhere").code == 404
    assert app.authorizer_calls == []


def test_no_header_of_a_request_can_set_its_tenant(app: FakeApp) -> None:
    forged = {"HTTP_TENANT": "x", "HTTP_X_AUTHORIZER": "x", "HTTP_REQUESTCONTEXT": "{}"}
    response = send_request(app.gateway, "GET", "/open", **forged)
    assert response.document is None
    assert_refused(send_request(app.gateway, "GET", "/closed", **forged))


def test_every_thread_gets_its_own_response(app: FakeApp) -> None:
    tokens = [f"good-{number % 50}" for number in range(2_000)]
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(app.request, tokens))
    assert [response.document["tenant"] for response in responses] == tokens
