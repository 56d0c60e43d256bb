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
from local.authorizers import MAX_POLICIES_KEPT, MAX_TOKEN_CHARACTERS
from local.gateway import Gateway
from tests.support.wsgi import Answer, ask, with_body

TTL_S = 60


def answer(app: Chalice) -> Response:
    """Return what an authorizer said of the current request."""
    request: Any = app.current_request
    told = json.dumps(request.context.get("authorizer"))
    return Response(told, {"Content-Type": "application/json"})


class Clock:
    """Seconds that only tests move."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """An app with one guarded route and an open one, and what its authorizer is to say."""

    def __init__(self) -> None:
        self.asked: list[AuthRequest] = []
        self.away = False
        self.takes_s = 0
        self.revoked: set[str] = set()
        self.routes: list[Any] = ["*"]
        self.clock = Clock()
        self.gateway = Gateway(self._app(), self.clock)

    def _app(self) -> Chalice:
        app = Chalice("door", configure_logs=False)
        app.api.binary_types = []
        app.register_middleware(replace_chalice_errors, "http")

        @app.authorizer(name="authorizer", ttl_seconds=TTL_S)
        def authorizer(request: AuthRequest) -> AuthResponse | dict[str, Any]:
            self.asked.append(request)
            self.clock.now += self.takes_s
            if self.away:
                raise Unavailable("The keys are away.", retry_after=7)
            if request.token in self.revoked or not request.token.startswith("good"):
                return DENY_ALL
            return AuthResponse(self.routes, request.token, {"tenant": request.token})

        @app.route("/open", methods=["GET"])
        def open_to_all() -> Response:
            return answer(app)

        def guarded(**_names: str) -> Response:
            return answer(app)

        for path in ("/closed", "/closed/{name}"):
            app.route(path, methods=["GET", "POST"], authorizer=authorizer, content_types=["*/*"])(
                guarded
            )
        return app

    def knock(self, token: str | None, path: str = "/closed", method: str = "GET") -> Answer:
        return ask(self.gateway, method, path, **sending(token))


def sending(token: str | None) -> dict[str, str]:
    return {} if token is None else {"HTTP_AUTHORIZATION": token}


@pytest.fixture
def door() -> Door:
    return Door()


def assert_refused(answer: Answer) -> None:
    assert answer.code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.document["type"] == "urn:webhook-timers:unauthorized"


def test_an_open_route_asks_nobody(door: Door) -> None:
    for token in (None, "good", "bad"):
        assert door.knock(token, "/open").document is None
    assert door.asked == []


@pytest.mark.parametrize("token", [None, ""])
def test_without_the_header_the_authorizer_is_not_called(door: Door, token: str | None) -> None:
    assert_refused(door.knock(token))
    assert door.asked == []


def test_a_header_longer_than_any_key_is_refused_unasked_and_not_kept(door: Door) -> None:
    longest = "good".ljust(MAX_TOKEN_CHARACTERS, "-")
    assert door.knock(longest).code == 200
    assert_refused(door.knock(longest + "-"))
    assert_refused(door.knock("good" + " " * 8_000))
    assert [asked.token for asked in door.asked] == [longest]


def test_whom_the_authorizer_names_reaches_the_view(door: Door) -> None:
    assert door.knock("good").document == {"tenant": "good", "principalId": "good"}
    (asked,) = door.asked
    assert (asked.auth_type, asked.token) == ("TOKEN", "good")
    assert asked.method_arn.startswith("arn:aws:execute-api:")
    assert asked.method_arn.endswith("/GET/closed")


def test_whom_it_does_not_know_is_refused_before_the_body_is_read(door: Door) -> None:
    environ = with_body(b"x" * 100) | sending("bad")
    assert_refused(ask(door.gateway, "POST", "/closed", **environ))
    assert environ["wsgi.input"].tell() == 0


def test_an_authorizer_that_cannot_tell_is_503_and_is_asked_again(door: Door) -> None:
    door.away = True
    answer = door.knock("good")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "7")
    door.away = False
    assert door.knock("good").code == 200


def test_an_answer_is_kept_for_all_routes_until_its_time_is_over(door: Door) -> None:
    door.knock("good")
    door.revoked.add("good")
    door.away = True
    door.clock.now += TTL_S - 0.001
    for path in ("/closed", "/closed/7"):
        for method in ("GET", "POST"):
            assert door.knock("good", path, method).document["tenant"] == "good"
    assert len(door.asked) == 1

    door.away = False
    door.clock.now += 0.001
    assert_refused(door.knock("good"))


def test_use_does_not_keep_an_answer_longer(door: Door) -> None:
    for _ in range(TTL_S):
        assert door.knock("good").code == 200
        door.clock.now += 1
    door.revoked.add("good")
    assert_refused(door.knock("good"))


def test_an_answer_that_took_long_is_as_old_as_its_question(door: Door) -> None:
    door.takes_s = 10
    door.knock("good")
    door.revoked.add("good")
    door.clock.now += TTL_S - 10
    assert_refused(door.knock("good"))


def test_every_token_has_an_answer_of_its_own(door: Door) -> None:
    for token in ("good-1", "good-2", "good-1", "good-2", "Good-1"):
        answer = door.knock(token)
        assert answer.code == 401 or answer.document["tenant"] == token
    assert [asked.token for asked in door.asked] == ["good-1", "good-2", "Good-1"]


def test_answers_are_kept_in_a_bounded_number_the_last_used_longest(door: Door) -> None:
    for number in range(MAX_POLICIES_KEPT):
        door.knock(f"good-{number}")
    door.knock("good-0")
    door.knock("good-new")
    door.asked.clear()
    for token in ("good-0", "good-new", "good-2", "good-1"):
        door.knock(token)
    assert [asked.token for asked in door.asked] == ["good-1"]


def test_refusals_push_out_no_caller(door: Door) -> None:
    door.knock("good")
    for number in range(MAX_POLICIES_KEPT + 1):
        door.knock(f"bad-{number}")
    door.asked.clear()
    assert door.knock("good").code == 200
    assert door.asked == []


def test_a_key_made_after_it_was_refused_is_known_at_once(door: Door) -> None:
    door.revoked.add("good")
    assert_refused(door.knock("good"))
    door.revoked.clear()
    assert door.knock("good").code == 200


def test_an_answer_opens_only_what_it_allows(door: Door) -> None:
    door.routes = [AuthRoute("/closed", ["GET"])]
    assert door.knock("good").code == 200
    assert_refused(door.knock("good", method="POST"))
    assert_refused(door.knock("good", "/closed/7"))
    door.routes = []
    assert_refused(door.knock("good-2"))


def test_a_wrong_method_is_405_and_an_unknown_path_404_with_or_without_a_key(door: Door) -> None:
    for token in (None, "good", "bad"):
        assert door.knock(token, method="PUT").code == 405
        assert door.knock(token, "/nowhere").code == 404
    assert door.asked == []


def test_no_header_of_a_request_can_name_its_sender(door: Door) -> None:
    forged = {"HTTP_TENANT": "x", "HTTP_X_AUTHORIZER": "x", "HTTP_REQUESTCONTEXT": "{}"}
    answer = ask(door.gateway, "GET", "/open", **forged)
    assert answer.document is None
    assert_refused(ask(door.gateway, "GET", "/closed", **forged))


def test_many_threads_get_their_own_answers(door: Door) -> None:
    tokens = [f"good-{number % 50}" for number in range(2_000)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(door.knock, tokens))
    assert [answer.document["tenant"] for answer in answers] == tokens
