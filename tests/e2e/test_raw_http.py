"""Unusual and broken requests: each gets the right response, none a 500 or another timer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.raw import HOST, TIMER, RawResponse, chunked, conversation, post, with_length
from tests.e2e.server import Client, Server

JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return one server for the whole module: a bad request must not harm the next."""
    folder = tmp_path_factory.mktemp("requests")
    server = Server(folder / "data", folder / "output.txt")
    server.start()
    first = server.set_timer("http://127.0.0.1:1/", 3600)
    yield server
    try:
        assert server.healthy()
        assert first in server.timers()
        assert "Traceback" not in server.output
    finally:
        server.kill()


def send_request(server: Client, text: str) -> RawResponse:
    """Send ``text`` on a connection of its own; return the response."""
    with conversation(server.port) as connection:
        connection.send(text)
        return connection.response()


def get(path: str, headers: str = HOST) -> str:
    return f"GET {path} HTTP/1.1\r\n{headers}\r\n"


def assert_problem(response: RawResponse, status: int) -> None:
    assert response.status == status, response
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem.keys() >= {"type", "title", "detail"}


@pytest.mark.parametrize(
    "text",
    ["%00", "9" * 23, str(2**63), "0", "01", "-1", "+1", "1.5", "1e0", "7abc", "%ff", "%", "1%0A"],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_invalid_id_names_no_timer(server: Server, method: str, text: str) -> None:
    assert_problem(send_request(server, f"{method} /timers/{text} HTTP/1.1\r\n{HOST}\r\n"), 404)


@pytest.mark.parametrize("path", ["/nowhere", "//timers", "/timers/1/2", "/%00", "/timer"])
def test_an_unknown_path_is_not_found(server: Server, path: str) -> None:
    assert_problem(send_request(server, get(path)), 404)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "BREW"])
def test_the_refusal_of_a_wrong_method_names_the_right_ones(server: Server, method: str) -> None:
    response = send_request(server, f"{method} /timers HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n")

    assert_problem(response, 405)
    assert response.headers["Allow"] == "DELETE, GET, POST"


def test_the_response_to_a_head_request_has_no_body(server: Server) -> None:
    for path in ("/timers", "/health", "/timers/1"):
        response = server.request("HEAD", path)
        assert (response.status, response.body) == (200, b"")
    assert server.request("HEAD", "/timers/1/replay").status == 405
    assert server.request("GET", "/health").status == 200  # on the same connection


@pytest.mark.parametrize(
    "path", ["/timers/1", "/timers/%31", "/%74imers/1", "/timers/1/", "/timers/1?"]
)
def test_a_path_may_be_written_in_several_ways(server: Server, path: str) -> None:
    response = send_request(server, get(path))
    assert (response.status, response.json()["id"]) == (200, 1)


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=1&limit=1", "status=%ff%fe", "cursor=%00", "%ff=%fe", "=", "limits=0"],
)
def test_a_wrong_query_is_refused(server: Server, query: str) -> None:
    assert_problem(send_request(server, get(f"/timers?{query}")), 422)


@pytest.mark.parametrize("query", ["limit=1", "&&&", "&limit=%31&"])
def test_a_valid_query_is_accepted(server: Server, query: str) -> None:
    assert send_request(server, get(f"/timers?{query}")).status == 200


@pytest.mark.parametrize("path", ["/" + "x" * 70_000, "/timers?cursor=" + "x" * 70_000])
def test_an_endless_path_is_refused(server: Server, path: str) -> None:
    assert send_request(server, get(path)).status == 414


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "\xff"])
def test_a_body_on_a_route_without_one_changes_nothing(server: Server, content_type: str) -> None:
    headers = f"{HOST}Content-Type: {content_type}\r\nContent-Length: 2\r\n"
    response = send_request(server, get("/timers/1", headers) + "{}")
    assert (response.status, response.json()["id"]) == (200, 1)


@pytest.mark.parametrize(
    "headers",
    ["", "Host: evil.example\r\n", "Host: [::\r\n", f"{HOST}Host: evil.example\r\n"],
    ids=["no host", "foreign host", "broken host", "two hosts"],
)
def test_a_request_to_another_host_is_refused(server: Server, headers: str) -> None:
    assert send_request(server, get("/timers", headers)).status in (400, 403)


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /health HTTP/1.0\r\n\r\n",
        "GET /health HTTP/1.0\r\nHost: balancer.example\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: balancer.example\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: 10.0.0.7:8000\r\nOrigin: null\r\n\r\n",
    ],
)
def test_everybody_may_ask_for_the_health(server: Server, request_text: str) -> None:
    response = send_request(server, request_text)
    assert (response.status, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_web_page_of_another_site_may_not_set_timers(server: Server, origin: str) -> None:
    assert_problem(send_request(server, with_length(TIMER, JSON, f"Origin: {origin}")), 403)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "json"],
)
def test_the_refusal_of_a_wrong_content_type_says_what_to_send(
    server: Server, content_type: str
) -> None:
    response = send_request(server, with_length(TIMER, f"Content-Type: {content_type}"))

    assert_problem(response, 415)
    assert "curl" in response.json()["detail"]


@pytest.mark.parametrize(
    "request_text",
    [
        with_length(TIMER),
        with_length(TIMER, "Content-Type: application/json; charset=utf-8"),
        with_length(TIMER, "content-type: Application/JSON"),
        chunked(TIMER),
        chunked(*TIMER),
    ],
    ids=["no type", "charset", "capitals", "one chunk", "a chunk per byte"],
)
def test_a_good_request_of_an_unusual_shape_sets_a_timer(server: Server, request_text: str) -> None:
    response = send_request(server, request_text)

    assert response.status == 201
    assert server.time_left(response.json()["id"]) > 3500


def test_a_client_that_expects_100_continue_gets_it(server: Server) -> None:
    with conversation(server.port) as connection:
        connection.send(
            post(f"{JSON}\r\nExpect: 100-continue\r\nContent-Length: {len(TIMER)}\r\n", "")
        )
        assert connection.response().status == 100
        connection.send(TIMER)
        assert connection.response().status == 201


@pytest.mark.parametrize(
    "request_text",
    [
        with_length(" " * 140_000 + TIMER, JSON),
        post(f"{JSON}\r\nContent-Length: 99999999999\r\n", ""),
        chunked(*[" " * 10_000] * 14, TIMER),
    ],
    ids=["sent", "announced", "chunked"],
)
def test_a_body_that_is_too_large_is_refused(server: Server, request_text: str) -> None:
    assert_problem(send_request(server, request_text), 413)


@pytest.mark.parametrize("length", ["abc", "-1", "+5", "1.5", "9" * 40, "5\r\nContent-Length: 6"])
def test_an_invalid_content_length_is_refused(server: Server, length: str) -> None:
    assert (
        send_request(server, post(f"{JSON}\r\nContent-Length: {length}\r\n", TIMER)).status == 400
    )


@pytest.mark.parametrize(
    "body", ["", "{", "[" * 60_000, '{"url": "\xff"}', TIMER + "\0", '"' + "x" * 60_000]
)
def test_a_body_that_is_not_json_is_refused(server: Server, body: str) -> None:
    assert_problem(send_request(server, with_length(body, JSON)), 400)


def test_a_body_that_ends_too_soon_sets_no_timer(server: Server) -> None:
    before = server.timers()
    with conversation(server.port) as connection:
        connection.send(post(f"{JSON}\r\nContent-Length: {len(TIMER) + 1}\r\n", TIMER))
        connection.finish_sending()
        response = connection.read()
    assert response is None or response.status == 400
    assert server.timers() == before


@pytest.mark.parametrize("request_text", [with_length(TIMER, JSON), chunked(TIMER), get("/timers")])
def test_a_client_that_closes_its_sending_half_gets_its_response(
    server: Server, request_text: str
) -> None:
    with conversation(server.port) as connection:
        connection.send(request_text)
        connection.finish_sending()
        assert connection.response().status in (200, 201)
        assert connection.read() is None, "the server closes too"


def test_pipelined_requests_get_their_responses_in_order(server: Server) -> None:
    first = server.set_timer("http://127.0.0.1:1/", 3600)
    with conversation(server.port) as connection:
        requests = [get(f"/timers/{first}"), with_length(TIMER, JSON), get("/timers/0"), get("/")]
        connection.send("".join(requests))
        responses = [connection.response() for _ in requests]

    assert [response.status for response in responses] == [200, 201, 404, 200]
    assert responses[0].json()["id"] == first
    assert responses[1].json()["id"] == first + 1


@pytest.mark.parametrize(
    "garbage",
    ["hello\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "GET /\r\n\r\n"],
    ids=["text", "TLS", "HTTP/0.9"],
)
def test_bytes_that_are_not_http_are_refused(server: Server, garbage: str) -> None:
    with conversation(server.port) as connection:
        connection.send(garbage)
        response = connection.read()
    assert response is None or response.status == 400


def test_unfinished_requests_do_not_block_others(server: Server) -> None:
    with ExitStack() as silent:
        for _ in range(100):
            silent.enter_context(conversation(server.port)).send("GET /health HTTP/1.1\r\n")
        assert send_request(server, get("/health")).status == 200
