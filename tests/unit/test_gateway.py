"""The offline gateway: routes, bodies, headers and queries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chalice.app import Chalice, Response

from chalicelib.rest.problems import replace_chalice_errors
from chalicelib.rest.reading import MAX_BODY_BYTES, too_large
from local.gateway import Gateway
from local.http_message import HttpRequest
from tests.support.wsgi import GatewayResponse, send_request, with_body


def json_response(body: Any) -> Response:
    return Response(json.dumps(body), {"Content-Type": "application/json"})


def small_app() -> Chalice:
    """Return an app whose views return the request that reached them."""
    app = Chalice("small", configure_logs=False)
    app.api.binary_types = []
    app.register_middleware(replace_chalice_errors, "http")

    @app.route("/", methods=["GET"])
    def index() -> Response:
        return json_response("index")

    @app.route("/things", methods=["GET", "POST"], content_types=["*/*"])
    def things() -> Response:
        request: Any = app.current_request
        body = request.raw_body or b""
        assert isinstance(body, bytes)
        return json_response(
            {
                "body": body.decode("latin-1"),
                "headers": dict(request.headers),
                "query": dict((request.query_params or {}).items()),
                "path": request.context["path"],
            }
        )

    @app.route("/things/fixed", methods=["GET"])
    def fixed() -> Response:
        return json_response("fixed")

    @app.route("/things/{name}", methods=["GET", "DELETE"], content_types=["*/*"])
    def thing(name: str) -> Response:
        request: Any = app.current_request
        return (
            Response("", {}, 204) if request.method == "DELETE" else json_response({"name": name})
        )

    return app


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return Gateway(small_app())


def post(gateway: Gateway, body: bytes, **environment: Any) -> GatewayResponse:
    return send_request(gateway, "POST", "/things", **with_body(body) | environment)


def test_a_fixed_path_reaches_its_view(gateway: Gateway) -> None:
    assert send_request(gateway, "GET", "/").document == "index"
    assert send_request(gateway, "GET", "/things").document["path"] == "/things"


def test_a_fixed_path_goes_before_one_with_braces(gateway: Gateway) -> None:
    assert send_request(gateway, "GET", "/things/fixed").document == "fixed"


@pytest.mark.parametrize("name", ["7", "abc", "a.b", "%00", "\x00", "{name}", "caf\xc3\xa9", "-"])
def test_a_path_parameter_reaches_the_view_unchanged(gateway: Gateway, name: str) -> None:
    assert send_request(gateway, "GET", f"/things/{name}").document == {"name": name}


@pytest.mark.parametrize("path", ["/things/", "/things//", "/things/fixed/", "//"])
def test_a_slash_at_the_end_changes_nothing(gateway: Gateway, path: str) -> None:
    assert send_request(gateway, "GET", path).status == "200 OK"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/things/1/2",
        "//things",
        "/Things",
        "/{name}",
        "things",
        "/\xff",
        "/" + "x" * 9_000,
    ],
)
def test_an_unknown_path_is_404_and_says_where_the_routes_are(gateway: Gateway, path: str) -> None:
    response = send_request(gateway, "GET", path)
    assert response.status == "404 Not Found"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "GET / names the routes" in response.document["detail"]
    assert len(response.body) < 1_000


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_a_wrong_method_is_405_with_the_right_ones(gateway: Gateway, method: str) -> None:
    response = send_request(gateway, method, "/things")
    assert response.status == "405 Method Not Allowed"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize("path", ["/", "/things", "/things/7", "/nothing"])
def test_head_is_get_without_the_body(gateway: Gateway, path: str) -> None:
    head, get = send_request(gateway, "HEAD", path), send_request(gateway, "GET", path)
    assert (head.status, head.headers) == (get.status, get.headers)
    assert (head.body, len(get.body) > 0) == (b"", True)


def test_every_response_with_a_body_has_its_length(gateway: Gateway) -> None:
    for response in (
        send_request(gateway, "GET", "/things"),
        send_request(gateway, "GET", "/nothing"),
    ):
        assert response.headers["Content-Length"] == str(len(response.body))


def test_a_response_without_content_has_no_length(gateway: Gateway) -> None:
    response = send_request(gateway, "DELETE", "/things/7")
    assert response.status == "204 No Content"
    assert response.body == b""
    assert "Content-Length" not in response.headers


def test_a_body_arrives_byte_for_byte(gateway: Gateway) -> None:
    body = bytes(range(256))
    assert post(gateway, body).document["body"].encode("latin-1") == body


@pytest.mark.parametrize(
    ("method", "path", "reads"),
    [
        ("POST", "/things", True),
        ("GET", "/things", False),
        ("PUT", "/things", False),
        ("DELETE", "/things/1", False),
        ("HEAD", "/things", False),
        ("POST", "/nothing", False),
    ],
)
def test_a_body_is_read_where_the_route_and_the_method_take_one(
    gateway: Gateway, method: str, path: str, *, reads: bool
) -> None:
    request = HttpRequest(method, path, "", {}, "")
    assert gateway.reads_body(request) is reads
    assert gateway.max_body_bytes(request) == MAX_BODY_BYTES


def test_a_fault_of_the_body_refuses_the_request(gateway: Gateway) -> None:
    response = gateway.respond(HttpRequest("POST", "/things", "", {}, "", fault=too_large()))
    assert response.status == 413
    assert response.headers["Content-Type"] == "application/problem+json"


def test_headers_arrive_under_their_own_names(gateway: Gateway) -> None:
    headers = post(
        gateway, b"", CONTENT_TYPE="text/plain", HTTP_X_ONE_TWO="3", HTTP_HOST="box:8000"
    ).document["headers"]
    assert (
        headers.items()
        >= {
            "content-type": "text/plain",
            "x-one-two": "3",
            "host": "box:8000",
        }.items()
    )


@pytest.mark.parametrize("absent", [{}, {"CONTENT_TYPE": ""}])
def test_a_missing_content_type_stays_missing(gateway: Gateway, absent: dict[str, str]) -> None:
    assert "content-type" not in post(gateway, b"", **absent).document["headers"]


def test_the_query_is_decoded_and_blank_values_are_kept(gateway: Gateway) -> None:
    response = send_request(gateway, "GET", "/things", QUERY_STRING="a=%2F+b&c=&a=2")
    assert response.document["query"] == {"a": "2", "c": ""}


def test_without_a_query_there_are_no_parameters(gateway: Gateway) -> None:
    assert send_request(gateway, "GET", "/things", QUERY_STRING="").document["query"] == {}


@pytest.mark.parametrize("query", ["=", "&", "a", "%", "%ff=%ff", "&&a=%zz", "a=" + "x" * 9_000])
def test_a_strange_query_crashes_nothing(gateway: Gateway, query: str) -> None:
    assert send_request(gateway, "GET", "/things", QUERY_STRING=query).status == "200 OK"
