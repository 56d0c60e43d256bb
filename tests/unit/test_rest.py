"""Reading requests and writing responses: ids, queries, pages, problems and access."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chalice.app import Request, Response

from chalicelib.domain import errors
from chalicelib.domain.errors import Fault, InvalidRequest, TimerNotFound
from chalicelib.domain.timer import NewTimer, Status, Timer
from chalicelib.rest import access, cursor, reading
from chalicelib.rest.catalogue import CATALOGUE
from chalicelib.rest.list_query import ListTimers
from chalicelib.rest.problems import problem
from chalicelib.rest.reading import MAX_BODY_BYTES, ApiRequest
from chalicelib.rest.responses import HEALTHY, INDEX, MAX_PAGE_BYTES, page_of
from chalicelib.rest.router import Router
from chalicelib.service.ports import Page
from chalicelib.settings import load
from tests.support.factories import new_timer
from tests.support.routes import FakeService, app_of, call

NOW = 1_800_000_000_000
OFFLINE = load({"TIMERS_ALLOWED_HOSTS": "box.local"})
WITH_KEYS = load({"TIMERS_AUTH": "keys"})
ON_AWS = load({"AWS_LAMBDA_FUNCTION_NAME": "timers-dev", "TIMERS_AUTH": "none"})
ON_AN_EMULATOR = load({"TIMERS_ENGINE": "aws"})


def request(
    *,
    query: dict[str, list[str]] | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Request:
    event: dict[str, Any] = {
        "requestContext": {"httpMethod": "GET", "resourcePath": "/timers", "path": "/timers"},
        "headers": headers or {},
        "multiValueQueryStringParameters": query,
        "pathParameters": {},
        "stageVariables": None,
        "body": body,
        "isBase64Encoded": False,
    }
    return Request(event, None)


def query(**parameters: str) -> dict[str, Any]:
    asked = request(query={name: [text] for name, text in parameters.items()})
    read = ListTimers.parse(reading.query_of(asked))
    return {"limit": read.limit, "status": read.status, "before": read.before}


def listing(
    page: Page, *, path: str = "/timers", max_bytes: int = MAX_PAGE_BYTES, **parameters: str
) -> Response:
    """Return the response to a list with ``parameters`` in its query, whose page is ``page``."""
    asked = ApiRequest(
        "default", path, {}, ListTimers.parse({name: [text] for name, text in parameters.items()})
    )
    return page_of(asked, page, NOW, max_bytes)


def page(ids: range, before: int | None = None) -> Page:
    new = NewTimer(tenant="default", url="http://h", created_at=NOW, due_at=NOW)
    return Page(timers=[Timer.first(new, timer_id) for timer_id in ids], before=before)


def document(response: Response) -> Any:
    return json.loads(response.body)


def admitted(headers: dict[str, str], settings: Any = OFFLINE) -> int:
    """Return the status that a request with ``headers`` ends with."""
    try:
        access.check_site(request(headers=headers).headers, settings)
    except errors.CrossSiteRequest as error:
        return int(problem(error).status_code)
    return 200


@pytest.mark.parametrize("text", ["1", "7", "10", "9223372036854775807"])
def test_an_id_is_an_integer_from_1(text: str) -> None:
    assert reading.timer_id(text) == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "+1",
        "01",
        "1.5",
        "1e0",
        "1_0",
        "0x1",
        "7abc",
        "abc",
        " 1",
        "1 ",
        "1\n",
        "\x00",
        "%00",
        "1%00",
        "9223372036854775808",
        "9" * 23,
        "9" * 10_000,
        "\u0661",
        "\uff11",
        "\u00b2",
        "1/2",
    ],
)
def test_an_invalid_id_names_no_timer(text: str) -> None:
    with pytest.raises(TimerNotFound) as refusal:
        reading.timer_id(text)
    assert len(refusal.value.detail) < 200


def test_a_list_shows_100_timers_of_any_status_unless_asked() -> None:
    assert query() == {"limit": 100, "status": None, "before": None}


@pytest.mark.parametrize("limit", [1, 10, 999, 1000])
def test_a_limit_from_1_to_1000_is_read(limit: int) -> None:
    assert query(limit=str(limit))["limit"] == limit


@pytest.mark.parametrize("name", ["limit", "status", "cursor"])
@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "-1", "1001", "99999999999", "1.5", "1e2", "abc", "01", "\u0661", "\x00", "é"],
)
def test_an_invalid_query_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        query(**{name: text})
    assert [fault.field for fault in refusal.value.faults] == [name]


def test_every_fault_of_a_query_is_named() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        query(limit="0", status="done", cursor="x")
    assert [fault.field for fault in refusal.value.faults] == ["limit", "status", "cursor"]


def test_a_parameter_that_is_given_twice_is_refused_by_name() -> None:
    asked = request(query={"status": ["failed", "failed"], "limit": ["1"]})
    with pytest.raises(InvalidRequest) as refusal:
        ListTimers.parse(reading.query_of(asked))
    assert refusal.value.faults == [Fault("status", "this parameter is given more than once")]


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_read(status: Status) -> None:
    assert query(status=status.value)["status"] is status


@pytest.mark.parametrize("before", [1, 2, 255, 10**6, 2**63 - 1])
def test_a_cursor_continues_after_the_page_before_it(before: int) -> None:
    assert query(cursor=cursor.write(before))["before"] == before


@pytest.mark.parametrize("before", [0, -1, 2**63])
def test_a_cursor_for_no_id_is_refused(before: int) -> None:
    with pytest.raises(InvalidRequest):
        query(cursor=cursor.write(before))


def test_a_page_with_more_to_come_links_to_the_next_with_the_same_query() -> None:
    response = listing(page(range(9, 7, -1), before=8), limit="2", status="failed")
    link = response.headers["Link"]
    assert link == f'</timers?limit=2&cursor={cursor.write(8)}&status=failed>; rel="next"'
    assert [item["id"] for item in document(response)] == [9, 8]


@pytest.mark.parametrize("character", ['"', "é", "\U0001f552"])
def test_no_page_is_too_long_for_a_lambda(character: str) -> None:
    url = "http://h/" + character * 2_000
    timers = [
        Timer.first(new_timer(url=url, on_failure_url=url), number) for number in range(1000, 0, -1)
    ]
    response = listing(Page(timers=timers, before=None), limit="1000")
    assert len(json.dumps(response.to_dict())) < 6 * 2**20
    shown = document(response)
    assert 10 < len(shown) < 1000
    assert str(cursor.write(shown[-1]["id"])) in str(response.headers["Link"])


def test_a_link_keeps_the_stage_that_the_caller_sees() -> None:
    response = listing(page(range(1), before=8), path="/dev/timers", limit="2")
    assert str(response.headers["Link"]).startswith("</dev/timers?")


def test_an_empty_page_may_have_a_next_one() -> None:
    response = listing(page(range(0), before=8), limit="2")
    assert document(response) == []
    assert "Link" in response.headers


def test_the_last_page_has_no_link() -> None:
    assert "Link" not in listing(page(range(1, 3)), limit="2").headers


def test_a_page_that_grows_too_long_ends_early_and_links_to_the_rest() -> None:
    timers = [Timer.first(new_timer(url="http://h/" + "x" * 1_900), n) for n in (5, 4, 3, 2)]
    response = listing(Page(timers=timers, before=None), max_bytes=5_000, limit="4")
    assert [item["id"] for item in document(response)] == [5, 4, 3]
    assert response.headers["Link"] == f'</timers?limit=4&cursor={cursor.write(3)}>; rel="next"'


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        " application/json ",
        "",
    ],
)
def test_json_is_read_under_any_json_content_type(content_type: str) -> None:
    asked = request(headers={"content-type": content_type}, body=b"{}")
    assert reading.json_body(asked) == b"{}"


def test_a_missing_content_type_is_read_as_json() -> None:
    assert reading.json_body(request(body=b"{}")) == b"{}"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/problem+json",
        "multipart/form-data; boundary=application/json",
        "application/xml, application/json",
        "*/*",
        "x" * 5_000,
    ],
)
def test_the_refusal_of_another_content_type_says_what_to_send(content_type: str) -> None:
    with pytest.raises(errors.UnsupportedMediaType) as refusal:
        reading.json_body(request(headers={"content-type": content_type}, body=b"{}"))
    assert "curl: -H 'Content-Type: application/json'" in refusal.value.detail
    assert len(refusal.value.detail) < 300


def test_a_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert len(reading.json_body(request(body=b" " * MAX_BODY_BYTES))) == MAX_BODY_BYTES
    with pytest.raises(errors.BodyTooLarge, match=str(MAX_BODY_BYTES)):
        reading.json_body(request(body=b" " * (MAX_BODY_BYTES + 1)))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedBody("x"), 400),
        (errors.CrossSiteRequest("x"), 403),
        (errors.PurgeDisabled("x"), 403),
        (errors.RouteNotFound("x"), 404),
        (errors.TimerNotFound("x"), 404),
        (errors.MethodNotAllowed(["GET"]), 405),
        (errors.TimerInFlight("x"), 409),
        (errors.TimerSettled("x"), 409),
        (errors.BodyTooLarge("x"), 413),
        (errors.UnsupportedMediaType("x"), 415),
        (errors.InvalidRequest([Fault("url", "x")]), 422),
        (errors.Unavailable("x"), 503),
        (errors.InvalidSettings("x"), 503),
        (errors.StoreFileError("x"), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_becomes_a_problem_document(error: errors.TimersError, status: int) -> None:
    response = problem(error)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    found = document(response)
    assert found["type"] == f"urn:webhook-timers:{error.code}"
    assert (found["status"], found["detail"]) == (status, error.detail)
    assert found["title"]


def test_the_problem_of_an_invalid_request_names_every_fault() -> None:
    response = problem(InvalidRequest([Fault("url", "is required"), Fault("x", "unknown")]))
    assert document(response)["errors"] == [
        {"field": "url", "message": "is required"},
        {"field": "x", "message": "unknown"},
    ]


def test_the_problem_of_a_wrong_method_names_the_right_ones() -> None:
    assert problem(errors.MethodNotAllowed(["POST", "GET"])).headers["Allow"] == "GET, POST"


def test_the_problem_of_an_unavailable_store_says_when_to_retry() -> None:
    assert problem(errors.Unavailable("x", retry_after=7)).headers["Retry-After"] == "7"


def test_every_error_of_a_request_has_a_status() -> None:
    for kind in errors.RequestError.__subclasses__():
        assert kind in CATALOGUE


def test_the_problem_of_an_internal_error_has_no_details() -> None:
    api = Router[FakeService]()

    @api.get("/", returns=HEALTHY)
    def view(_service: FakeService, _request: ApiRequest) -> Response:
        raise RuntimeError("secret")

    response = call(app_of(api), "GET", "/")
    assert response["statusCode"] == 500
    assert response["headers"]["Content-Type"] == "application/problem+json"
    assert "secret" not in str(response["body"])


def test_a_view_gets_the_request_and_what_its_path_names() -> None:
    api = Router[FakeService]()

    @api.get("/timers/{timer_id}", returns=INDEX)
    def view(_service: FakeService, asked: ApiRequest) -> Response:
        return Response([asked.path, asked.timer_id])

    response = call(app_of(api), "GET", "/timers/{timer_id}", timer_id="7")
    assert json.loads(response["body"]) == ["/timers/7", 7]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.9.9.9",
        "[::1]",
        "[::1]:8000",
        "box.local",
        "Box.Local:8000",
    ],
)
def test_a_request_that_names_this_machine_is_admitted(host: str) -> None:
    assert admitted({"host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.1.2:8000",
        "[::]",
        "[fe80::1]",
        "2130706433",
        "evil@localhost",
        "@localhost",
        "evil:8000@localhost:8000",
        "localhost/evil",
        "localhost?evil",
        "localhost#evil",
        "localhost\\@evil.example",
        "localhost, evil.example",
        "localhost:80a",
        "localhost:-1",
        "localhost:123456",
        "localhost:8000:8000",
        "local\thost",
        " localhost",
        "localhost\n",
        "localhost.",
        "http://localhost",
        "[127.0.0.1]",
        "::1",
        "[::1]evil",
        "[::1%25lo]",
        "[",
        "[::1",
        ":8000",
        "\x00",
    ],
)
def test_a_request_that_names_another_host_is_refused(host: str) -> None:
    assert admitted({"host": host}) == 403


def test_a_request_without_a_host_is_refused() -> None:
    assert admitted({}) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:443", "https://localhost"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        # Names of the settings: a proxy may pass requests on under another name and port.
        ("box.local:8000", "http://box.local:8000"),
        ("localhost:8000", "https://box.local"),
        ("localhost:8000", "http://box.local:3000"),
    ],
)
@pytest.mark.parametrize("site", [{}, {"sec-fetch-site": "same-origin"}])
def test_a_web_page_of_this_server_is_admitted(
    host: str, origin: str, site: dict[str, str]
) -> None:
    assert admitted({"host": host, "origin": origin} | site) == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:3000"),
        ("localhost:8000", "http://localhost"),
        ("localhost:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://127.0.0.2:8000"),
        ("localhost:8000", "https://[::1]:8000"),
        ("localhost:8000", "http://evil@localhost:8000"),
        ("localhost:8000", "http://localhost:8000/"),
        ("localhost:8000", "http://localhost:8000, http://evil.example"),
        ("localhost:8000", "localhost:8000"),
        ("localhost:8000", "//localhost:8000"),
        ("localhost:8000", "ftp://localhost:8000"),
        ("box.local:8000", "http://evil@box.local"),
        ("box.local:8000", "http://evil.box.local:8000"),
    ],
)
def test_a_web_page_of_another_origin_on_this_machine_is_refused(host: str, origin: str) -> None:
    assert admitted({"host": host, "origin": origin}) == 403


@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "", "none, cross-site", "Same-Origin", "anything"]
)
def test_what_a_browser_calls_another_site_is_refused(site: str) -> None:
    assert admitted({"host": "localhost:8000", "sec-fetch-site": site}) == 403
    same = {"host": "localhost:8000", "origin": "http://localhost:8000", "sec-fetch-site": site}
    assert admitted(same) == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_address_bar_and_pages_of_this_server_are_admitted(site: str) -> None:
    assert admitted({"host": "localhost:8000", "sec-fetch-site": site}) == 200


def test_a_page_that_the_settings_allow_may_be_of_another_site() -> None:
    page = {"origin": "http://box.local:3000", "sec-fetch-site": "same-site"}
    assert admitted({"host": "box.local:8000"} | page) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://evil.example",
        "https://evil.example:8000",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "localhost",
        "file://",
        "http://[",
    ],
)
def test_a_web_page_of_another_site_is_refused(origin: str) -> None:
    assert admitted({"host": "localhost", "origin": origin}) == 403


def test_a_refusal_names_the_setting_that_admits_others() -> None:
    for refused in ({"host": "evil.example"}, {"host": "localhost", "origin": "http://evil"}):
        with pytest.raises(errors.CrossSiteRequest, match="TIMERS_ALLOWED_HOSTS"):
            access.check_site(refused, OFFLINE)


def test_an_offline_server_on_an_emulator_checks_hosts_and_origins_too() -> None:
    assert admitted({"host": "localhost"}, ON_AN_EMULATOR) == 200
    assert admitted({"host": "evil.example"}, ON_AN_EMULATOR) == 403
    assert admitted({"host": "localhost", "origin": "https://evil.example"}, ON_AN_EMULATOR) == 403


def test_on_aws_any_host_and_origin_are_admitted() -> None:
    assert admitted({"host": "api.example", "origin": "https://app.example"}, ON_AWS) == 200


def test_the_routes_are_named_with_their_methods() -> None:
    api = Router[FakeService]()
    for add, path in ((api.post, "/b"), (api.get, "/b"), (api.get, "/a")):
        add(path, returns=HEALTHY)(lambda _service, _request: Response(""))
    assert api.names(load({})) == ["GET /a", "GET /b", "POST /b"]


def test_with_keys_any_host_and_origin_are_admitted() -> None:
    headers = {"host": "timers.example", "origin": "https://app.example"}
    assert admitted(headers, WITH_KEYS) == 200
    assert admitted({}, WITH_KEYS) == 200


def test_the_tenant_of_a_request_is_the_one_of_its_authorizer() -> None:
    named = {"authorizer": {"tenant": "acme", "principalId": "acme"}}
    assert access.tenant_of(named, needs_key=True) == "acme"
    assert access.tenant_of(named, needs_key=False) == "acme"


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"authorizer": None},
        {"authorizer": {}},
        {"authorizer": {"principalId": "acme"}},
        {"authorizer": {"tenant": ""}},
        {"authorizer": {"tenant": None}},
        {"authorizer": {"tenant": ["acme"]}},
        {"authorizer": {"refused": "unauthorized"}},
    ],
)
def test_a_request_without_a_tenant_is_refused_if_keys_are_needed(context: Any) -> None:
    with pytest.raises(errors.Unauthorized) as refusal:
        access.tenant_of(context, needs_key=True)
    response = problem(refusal.value)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert access.tenant_of(context, needs_key=False) == "default"


def test_a_request_whose_authorizer_was_unavailable_is_503_not_401() -> None:
    away = {"authorizer": {"refused": "unavailable"}}
    with pytest.raises(errors.Unavailable):
        access.tenant_of(away, needs_key=True)
