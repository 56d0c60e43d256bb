"""Every route of the API, with everything behind it in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from chalice.test import Client, HTTPResponse

from app import create_app
from chalicelib.domain.claim import Claimed
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.moment import rfc3339
from chalicelib.domain.timer import DEFAULT_TENANT, Status, Timer
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.rest.reading import MAX_BODY_BYTES
from chalicelib.rest.responses import MAX_PAGE_BYTES
from tests.support.clock import START, ManualClock
from tests.support.due import all_due
from tests.support.factories import claim_of, set_timer, settlement_of
from tests.support.service import service_on

JSON = {"Content-Type": "application/json"}
URL = "https://someserver.com"
NO_IDS = [
    "abc",
    "0",
    "-1",
    "1.5",
    "1e0",
    "7abc",
    "1abc",
    "01",
    "+1",
    "%00",
    "\x00",
    "9" * 23,
    "%31",
]


class CountingStore(SQLiteTimerStore):
    """A store that counts its checks."""

    checks = 0

    def check(self) -> None:
        self.checks += 1
        super().check()


class BrokenStore(SQLiteTimerStore):
    """A store whose disk is full."""

    def check(self) -> None:
        raise Unavailable("The store cannot do this now: disk full.", retry_after=3)


@dataclass
class Service:
    """The API, with everything behind it in memory and the clock in the test's hand."""

    client: Client
    store: SQLiteTimerStore
    clock: ManualClock

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> HTTPResponse:
        sent = {"Host": "localhost:8000"} | (headers or {})
        response = self.client.http.request(method, path, headers=sent, body=body)
        assert response.status_code != 500, response.body
        return response

    def get(self, path: str) -> HTTPResponse:
        return self.request("GET", path)

    def delete(self, path: str) -> HTTPResponse:
        return self.request("DELETE", path)

    def post(self, body: Any, headers: dict[str, str] | None = None) -> HTTPResponse:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", "/timers", sent, JSON if headers is None else headers)

    def set(self, seconds: int = 30, url: str = URL) -> int:
        response = self.post({"seconds": seconds, "url": url})
        assert response.status_code == 201
        return int(response.json_body["id"])

    def list(self, query: str = "") -> list[int]:
        response = self.get(f"/timers{query}")
        assert response.status_code == 200
        return [item["id"] for item in response.json_body]

    def claim(self, timer_id: int) -> Timer:
        """Put the webhook of a timer on the wire, when it is due."""
        wakeup = self.store.get(DEFAULT_TENANT, timer_id).wakeup()
        self.clock.now = max(self.clock.now, wakeup.at)
        now = int(self.clock.now)
        result = self.store.claim(claim_of(wakeup, "t", now=now))
        assert isinstance(result, Claimed)
        return result.timer

    def settle(self, timer_id: int, status: Status, next_attempt_at: int | None = None) -> None:
        """Settle a claimed timer."""
        timer = self.claim(timer_id)
        now = int(self.clock.now)
        settlement = settlement_of(timer, "t", now=now, status=status, retry_at=next_attempt_at)
        assert self.store.settle(settlement)


Start = Callable[..., Service]


def shown(value: object) -> str:
    """Return a parameter as a test's name shows it: the same in every process."""
    return " ".join(sorted(value)) if isinstance(value, set) else str(value)[:60]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a service on a store of its own."""
    stores: list[SQLiteTimerStore] = []

    def started(kind: type[SQLiteTimerStore] = SQLiteTimerStore, **environment: Any) -> Service:
        store, clock = kind.in_memory(), ManualClock()
        stores.append(store)
        app = create_app(service_on(store, clock, **environment))
        return Service(Client(app), store, clock)

    yield started
    for store in stores:
        store.close()


@pytest.fixture
def service(start: Start) -> Service:
    return start()


def assert_problem(response: HTTPResponse, status: int) -> Any:
    """Check that ``response`` is a problem document (RFC 9457) and return it."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    document = response.json_body
    assert document["status"] == status
    assert all(type(document[name]) is str for name in ("type", "title", "detail"))
    assert "Traceback" not in response.body.decode()
    return document


def next_page(response: HTTPResponse) -> str | None:
    """Return the address of the next page, as the Link header gives it."""
    link = response.headers.get("Link")
    if link is None:
        return None
    address, relation = link.split("; ")
    assert relation == 'rel="next"'
    return str(address[1:-1])


# Set a timer


def test_a_timer_is_set_with_the_request_of_the_contract(service: Service) -> None:
    response = service.post({"hours": 4, "minutes": 0, "seconds": 1, "url": URL})
    assert response.status_code == 201
    assert response.json_body == {"id": 1}
    assert type(response.json_body["id"]) is int
    assert response.headers["Location"] == "/timers/1"
    assert response.headers["Content-Type"] == "application/json"


def test_ids_grow_and_a_refused_request_uses_none(service: Service) -> None:
    assert service.set() == 1
    assert service.post({"seconds": -1, "url": URL}).status_code == 422
    assert service.post(b"{").status_code == 400
    assert service.set() == 2


def test_an_id_is_not_used_again_after_its_timer_is_gone(service: Service) -> None:
    service.set()
    assert service.delete("/timers/1").status_code == 204
    assert service.set() == 2
    service.delete("/timers")
    assert service.set() == 3


@pytest.mark.parametrize(
    "body",
    [
        {"seconds": 0, "url": URL},
        {"minutes": 90, "url": URL},
        {"seconds": 315_360_000, "url": URL},
        {"seconds": 1, "url": "http://127.0.0.1:9000/hook?k=v#f"},
        {"seconds": 1, "url": "https://h/caf\u00e9"},
        {"seconds": 1, "url": "https://b\u00fccher.example/"},
    ],
)
def test_requests_that_the_contract_allows_are_accepted(
    service: Service, body: dict[str, Any]
) -> None:
    assert service.post(body).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-type": "application/json; charset=utf-8"}, {"CONTENT-TYPE": "application/JSON"}],
)
def test_json_may_be_sent_with_any_json_content_type_or_none(
    service: Service, headers: dict[str, str]
) -> None:
    assert service.post({"seconds": 1, "url": URL}, headers).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/octet-stream",
        "image/png",
        "multipart/form-data; boundary=x",
        "nonsense",
    ],
)
def test_another_content_type_is_415_and_the_detail_says_what_to_send(
    service: Service, content_type: str
) -> None:
    response = service.post({"seconds": 1, "url": URL}, {"Content-Type": content_type})
    detail = assert_problem(response, 415)["detail"]
    assert content_type in detail
    assert "-H 'Content-Type: application/json'" in detail
    assert service.list() == []


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"[", b"seconds=1", b"\xff\xfe", b"\x00", b"[" * 50_000, b'{"seconds": 01}'],
    ids=lambda body: repr(body[:12]),
)
def test_malformed_json_is_400(service: Service, body: bytes) -> None:
    assert "errors" not in assert_problem(service.post(body), 400)
    assert service.list() == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"seconds", "url"}),
        ({"seconds": 1}, {"url"}),
        ({"url": URL}, {"seconds"}),
        ({"seconds": -1, "url": URL}, {"seconds"}),
        ({"seconds": 1.5, "url": URL}, {"seconds"}),
        ({"seconds": 1.0, "url": URL}, {"seconds"}),
        ({"seconds": "1", "url": URL}, {"seconds"}),
        ({"seconds": True, "url": URL}, {"seconds"}),
        ({"seconds": None, "url": URL}, {"seconds"}),
        ({"seconds": [1], "url": URL}, {"seconds"}),
        ({"seconds": float("nan"), "url": URL}, {"seconds"}),
        ({"seconds": 2**63, "url": URL}, {"seconds"}),
        ({"hours": 10**30, "url": URL}, {"hours"}),
        ({"seconds": 315_360_001, "url": URL}, {"seconds"}),
        ({"seconds": 1, "url": None}, {"url"}),
        ({"seconds": 1, "url": ["https://h"]}, {"url"}),
        ({"seconds": 1, "url": "ftp://h"}, {"url"}),
        ({"seconds": 1, "url": "file:///etc/passwd"}, {"url"}),
        ({"seconds": 1, "url": "javascript:alert(1)"}, {"url"}),
        ({"seconds": 1, "url": "https://"}, {"url"}),
        ({"seconds": 1, "url": "https://a b"}, {"url"}),
        ({"seconds": 1, "url": "https://h:65536"}, {"url"}),
        ({"seconds": 1, "url": "https://h/" + "a" * 2048}, {"url"}),
        ({"seconds": 1, "url": "https://h/" + "\u00e9" * 400}, {"url"}),
        ({"seconds": 1, "url": "https://h/\u0000"}, {"url"}),
        ({"minuets": 5, "seconds": 1, "url": URL}, {"minuets"}),
        ({"minuets": 5, "url": "h", "hours": -1}, {"minuets", "url", "hours"}),
        ([], {"body"}),
        (None, {"body"}),
        ("text", {"body"}),
    ],
    ids=shown,
)
def test_an_invalid_request_is_422_and_every_fault_is_named(
    service: Service, body: Any, fields: set[str]
) -> None:
    document = assert_problem(service.post(body), 422)
    assert {fault["field"] for fault in document["errors"]} == fields
    assert all(fault.keys() == {"field", "message"} for fault in document["errors"])
    assert service.list() == []


def test_a_delay_that_is_too_long_names_the_limit(service: Service) -> None:
    document = assert_problem(service.post({"seconds": 315_360_001, "url": URL}), 422)
    assert "10 years" in document["errors"][0]["message"]


def test_a_body_that_is_too_large_is_413(service: Service) -> None:
    body = json.dumps({"seconds": 1, "url": URL}).encode()
    assert service.post(body.ljust(MAX_BODY_BYTES)).status_code == 201
    assert_problem(service.post(body.ljust(MAX_BODY_BYTES + 1)), 413)
    assert service.list() == [1]


# Timer status


def test_a_timers_status_is_its_id_and_the_seconds_left(service: Service) -> None:
    service.set(seconds=645)
    response = service.get("/timers/1")
    assert response.status_code == 200
    assert response.json_body == {"id": 1, "time_left": 645}


@pytest.mark.parametrize(
    ("passed_ms", "left"), [(0, 30), (1, 30), (1_000, 29), (29_999, 1), (30_000, 0)]
)
def test_time_left_is_rounded_up(service: Service, passed_ms: int, left: int) -> None:
    service.set(seconds=30)
    service.clock.advance(passed_ms)
    assert service.get("/timers/1").json_body == {"id": 1, "time_left": left}


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_an_expired_timer_shows_0_for_ever(service: Service, status: Status) -> None:
    service.set(seconds=30)
    service.settle(1, status)
    for moved_ms in (0, 1_000, 10 * 365 * 86_400_000, -11 * 365 * 86_400_000):
        service.clock.advance(moved_ms)
        assert service.get("/timers/1").json_body == {"id": 1, "time_left": 0}


def test_a_timer_that_waits_for_a_retry_shows_0(service: Service) -> None:
    service.set(seconds=30)
    service.settle(1, Status.PENDING, next_attempt_at=START + 500_000)
    assert service.get("/timers/1").json_body == {"id": 1, "time_left": 0}


def test_an_unknown_timer_is_404(service: Service) -> None:
    assert_problem(service.get("/timers/1"), 404)
    assert_problem(service.delete("/timers/1"), 404)


@pytest.mark.parametrize("text", NO_IDS)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_invalid_id_is_404_and_never_names_another_timer(
    service: Service, method: str, text: str
) -> None:
    for _ in range(10):
        service.set()
    assert_problem(service.request(method, f"/timers/{text}"), 404)
    assert len(service.list()) == 10


# List


def test_a_list_is_an_array_highest_id_first(service: Service) -> None:
    assert service.get("/timers").json_body == []
    for seconds in (50, 10, 30):
        service.set(seconds)
    assert service.list() == [3, 2, 1]


def test_a_timer_in_a_list_has_all_its_fields(service: Service) -> None:
    service.set(seconds=30, url="https://u:p@h/a?k=v#f")
    (item,) = service.get("/timers").json_body
    assert (
        item.items()
        >= {
            "id": 1,
            "url": "https://u:p@h/a?k=v#f",
            "status": "pending",
            "due_at": rfc3339(START + 30_000),
            "time_left": 30,
        }.items()
    )


def test_a_list_can_be_of_one_status(service: Service) -> None:
    for _ in range(4):
        service.set(seconds=1)
    service.settle(1, Status.FIRED)
    service.settle(2, Status.FAILED)
    service.settle(3, Status.PENDING, next_attempt_at=START + 500_000)
    assert service.list("?status=fired") == [1]
    assert service.list("?status=failed") == [2]
    assert service.list("?status=pending") == [4, 3]
    assert service.list() == [4, 3, 2, 1]


def test_a_list_shows_100_timers_unless_asked_for_more_or_fewer(service: Service) -> None:
    with service.store.transaction():
        for _ in range(101):
            service.set()
    assert service.list() == list(range(101, 1, -1))
    assert service.list("?limit=1") == [101]
    assert service.list("?limit=1000") == list(range(101, 0, -1))


def test_links_lead_through_the_whole_list(service: Service) -> None:
    with service.store.transaction():
        for _ in range(25):
            service.set()
    seen: list[int] = []
    address: str | None = "/timers?limit=10"
    while address:
        response = service.get(address)
        seen += [item["id"] for item in response.json_body]
        address = next_page(response)
    assert seen == list(range(25, 0, -1))


def test_links_keep_the_status_that_was_asked_for(service: Service) -> None:
    for _ in range(5):
        service.set(seconds=1)
    for timer_id in (1, 3, 5):
        service.settle(timer_id, Status.FAILED)
    first = service.get("/timers?status=failed&limit=2")
    assert [item["id"] for item in first.json_body] == [5, 3]
    assert service.list((next_page(first) or "").removeprefix("/timers")) == [1]


def test_timers_set_between_two_pages_do_not_shift_the_pages(service: Service) -> None:
    for _ in range(4):
        service.set()
    address = next_page(service.get("/timers?limit=2")) or ""
    service.set()
    service.delete("/timers/3")
    assert service.list(address.removeprefix("/timers")) == [2, 1]


def test_the_last_page_has_no_link(service: Service) -> None:
    for _ in range(2):
        service.set()
    assert next_page(service.get("/timers?limit=2")) is None


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", {"limit"}),
        ("limit=1001", {"limit"}),
        ("limit=-1", {"limit"}),
        ("limit=abc", {"limit"}),
        ("limit=", {"limit"}),
        ("limit=99999999999999999999999", {"limit"}),
        ("status=done", {"status"}),
        ("status=", {"status"}),
        ("status=PENDING", {"status"}),
        ("cursor=", {"cursor"}),
        ("cursor=5", {"cursor"}),
        ("cursor=%00", {"cursor"}),
        ("cursor=%ff%fe", {"cursor"}),
        ("cursor=LTE", {"cursor"}),
        ("cursor=" + "A" * 5_000, {"cursor"}),
        ("limit=0&status=x&cursor=y", {"limit", "status", "cursor"}),
    ],
    ids=shown,
)
def test_a_wrong_query_is_422_and_every_fault_is_named(
    service: Service, query: str, fields: set[str]
) -> None:
    document = assert_problem(service.get(f"/timers?{query}"), 422)
    assert {fault["field"] for fault in document["errors"]} == fields


# Cancel and purge


def test_a_cancelled_timer_is_gone(service: Service) -> None:
    service.set()
    response = service.delete("/timers/1")
    assert (response.status_code, response.body) == (204, b"")
    assert_problem(service.get("/timers/1"), 404)
    assert_problem(service.delete("/timers/1"), 404)
    assert all_due(service.store, START + 10**12, 10) == []


def test_cancelling_a_timer_in_flight_is_409(service: Service) -> None:
    service.set(seconds=1)
    service.claim(1)
    assert_problem(service.delete("/timers/1"), 409)
    assert service.get("/timers/1").json_body == {"id": 1, "time_left": 0}


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_cancelling_a_settled_timer_is_409_and_leaves_it(service: Service, status: Status) -> None:
    service.set(seconds=1)
    service.settle(1, status)
    document = assert_problem(service.delete("/timers/1"), 409)
    assert document["type"] == "urn:webhook-timers:timer-settled"
    assert document["detail"] == f"Timer 1 has {status.value}; it cannot be cancelled."
    assert service.list(f"?status={status.value}") == [1]


def test_a_timer_that_is_due_and_not_claimed_can_be_cancelled(service: Service) -> None:
    service.set(seconds=1)
    service.clock.advance(5_000)
    assert service.delete("/timers/1").status_code == 204
    assert all_due(service.store, START + 10**12, 10) == []


def test_a_purge_removes_every_timer(service: Service) -> None:
    with service.store.transaction():
        for _ in range(1_200):
            service.set()
    response = service.delete("/timers")
    assert (response.status_code, response.json_body) == (200, {})
    assert service.list() == []
    assert service.delete("/timers").status_code == 200


def test_a_purge_is_refused_where_it_is_switched_off(start: Start) -> None:
    service = start(TIMERS_STAGE="prod")
    service.set()
    document = assert_problem(service.delete("/timers"), 403)
    assert "TIMERS_ALLOW_PURGE" in document["detail"]
    assert service.list() == [1]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}, JSON],
)
def test_a_route_without_a_body_ignores_the_content_type(
    service: Service, headers: dict[str, str]
) -> None:
    service.set()
    for path in ("/", "/health", "/timers", "/timers/1", "/timers/1/attempts"):
        assert service.request("GET", path, b"{}", headers).status_code == 200
    assert service.request("POST", "/timers/1/replay", b"{}", headers).status_code == 409
    assert service.request("DELETE", "/timers/1", b"{}", headers).status_code == 204
    assert service.request("DELETE", "/timers", b"{}", headers).status_code == 200


# Everything else


def test_the_index_names_the_routes(service: Service) -> None:
    assert service.get("/").json_body == {
        "routes": [
            "GET /",
            "GET /health",
            "GET /openapi.json",
            "DELETE /timers",
            "GET /timers",
            "POST /timers",
            "POST /timers/batch",
            "DELETE /timers/by-key/{key}",
            "GET /timers/by-key/{key}",
            "PUT /timers/by-key/{key}",
            "POST /timers/cancel",
            "POST /timers/fire",
            "POST /timers/move",
            "POST /timers/replay",
            "DELETE /timers/{timer_id}",
            "GET /timers/{timer_id}",
            "PATCH /timers/{timer_id}",
            "GET /timers/{timer_id}/attempts",
            "GET /timers/{timer_id}/details",
            "POST /timers/{timer_id}/fire",
            "POST /timers/{timer_id}/replay",
        ]
    }


def test_the_service_is_healthy_when_it_reaches_its_store(service: Service) -> None:
    response = service.get("/health")
    assert (response.status_code, response.json_body) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": ""},
        {"Host": "balancer.example"},
        {"Host": "10.0.0.7:8000", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_everybody_may_ask_for_the_health(service: Service, headers: dict[str, str]) -> None:
    for method in ("GET", "HEAD"):
        assert service.request(method, "/health", headers=headers).status_code == 200
    assert_problem(service.request("DELETE", "/health", headers=headers), 403)


def test_all_who_ask_for_the_health_share_one_check(start: Start) -> None:
    service = start(CountingStore)
    for _ in range(64):
        assert service.get("/health").status_code == 200
    assert isinstance(service.store, CountingStore)
    # The clock is the real one, so another second may begin meanwhile.
    assert 1 <= service.store.checks <= 8


def test_head_needs_a_key_where_get_does(start: Start) -> None:
    service = start(TIMERS_AUTH="keys")
    responses = [service.request("HEAD", path) for path in ("/timers", "/timers/1", "/health")]
    assert [response.status_code for response in responses] == [401, 401, 200]


def test_the_service_is_not_healthy_when_it_does_not(start: Start) -> None:
    response = start(BrokenStore).get("/health")
    assert "disk full" in assert_problem(response, 503)["detail"]
    assert response.headers["Retry-After"] == "3"


def test_a_store_that_fails_makes_every_request_503(service: Service) -> None:
    service.set()
    service.store.close()
    body = json.dumps({"seconds": 1, "url": URL}).encode()
    for method, path in [
        ("GET", "/health"),
        ("POST", "/timers"),
        ("GET", "/timers"),
        ("DELETE", "/timers"),
        ("GET", "/timers/1"),
        ("DELETE", "/timers/1"),
    ]:
        response = service.request(method, path, body if method == "POST" else b"", JSON)
        assert_problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET"),
        ("/health", "GET"),
        ("/timers", "DELETE, GET, POST"),
        ("/timers/1", "DELETE, GET, PATCH"),
        ("/timers/1/attempts", "GET"),
        ("/timers/1/replay", "POST"),
        ("/timers/replay", "POST"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "TRACE"])
def test_a_wrong_method_is_405_with_the_right_ones(
    service: Service, path: str, allowed: str, method: str
) -> None:
    response = service.request(method, path, b"{}", JSON)
    assert_problem(response, 405)
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_foreign_host_or_origin_is_403_and_changes_nothing(
    service: Service, method: str, headers: dict[str, str]
) -> None:
    service.set()
    body = json.dumps({"seconds": 1, "url": URL}).encode()
    assert_problem(service.request(method, "/timers", body, JSON | headers), 403)
    assert service.list() == [1]


def test_a_host_that_the_settings_name_is_admitted(start: Start) -> None:
    service = start(TIMERS_ALLOWED_HOSTS="box.local")
    headers = {"Host": "box.local:8000", "Origin": "http://box.local"}
    assert service.request("GET", "/timers", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "accept", ["*/*", "text/html", "image/png", "application/octet-stream", ""]
)
def test_an_accept_header_changes_nothing(service: Service, accept: str) -> None:
    response = service.request("GET", "/timers", headers={"Accept": accept})
    assert (response.status_code, response.json_body) == (200, [])


def test_a_page_of_long_urls_ends_early_and_links_to_the_rest(service: Service) -> None:
    # Older versions accepted it; 12 bytes a character in JSON.
    url = URL + "/" + "\U0001f552" * 2_000
    for _ in range(70):
        set_timer(service.store, url=url, on_failure_url=url)

    response = service.get("/timers?limit=69")

    shown = [item["id"] for item in response.json_body]
    assert MAX_PAGE_BYTES < len(response.body) < MAX_PAGE_BYTES + 50_000
    assert shown == list(range(70, 70 - len(shown), -1))
    following = response.headers["Link"].partition(">")[0].removeprefix("<")
    assert service.list(following.removeprefix("/timers")) == list(range(shown[-1] - 1, 0, -1))


def test_a_text_that_is_too_long_gets_an_error_with_its_limit(service: Service) -> None:
    body = json.dumps({"cursor": "M" * 65}).encode()
    (fault,) = assert_problem(service.request("POST", "/timers/replay", body, JSON), 422)["errors"]
    assert fault == {"field": "cursor", "message": "must have at most 64 characters"}


# A policy of its own


def test_a_timer_may_have_a_policy_of_its_own(service: Service) -> None:
    policy = {"max_attempts": 3, "timeout": 5, "on_failure_url": "https://alerts.example/x"}

    assert service.post({"seconds": 30, "url": URL} | policy).json_body == {"id": 1}

    (item,) = service.get("/timers").json_body
    assert {name: item[name] for name in policy} == policy


def test_a_timer_without_its_own_policy_shows_null(service: Service) -> None:
    service.set()
    (item,) = service.get("/timers").json_body
    assert (item["max_attempts"], item["timeout"], item["on_failure_url"]) == (None, None, None)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("max_attempts", 0, "1 or more"),
        ("max_attempts", 4, "at most 3"),
        ("max_attempts", "2", "whole number"),
        ("timeout", 0, "1 or more"),
        ("timeout", 21, "at most 20 seconds"),
        ("timeout", 1.5, "whole number"),
        ("timeout", 10**30, "at most"),
        ("on_failure_url", "ftp://h", "http or https"),
        ("on_failure_url", 7, "string"),
    ],
)
def test_a_policy_beyond_the_services_own_is_refused(
    start: Start, field: str, value: object, says: str
) -> None:
    service = start(TIMERS_RETRY_DELAYS="5,60", TIMERS_SEND_TIMEOUT="20")
    problem = assert_problem(service.post({"seconds": 1, "url": URL, field: value}), 422)
    (fault,) = problem["errors"]
    assert fault["field"] == field
    assert says in fault["message"]
    assert service.list() == []


# Where a timer may lead


FORBIDDEN = ["http://169.254.169.254/latest", "http://0x7f.1", "http://[::ffff:10.0.0.1]:80/a"]


@pytest.mark.parametrize("field", ["url", "on_failure_url"])
@pytest.mark.parametrize("url", FORBIDDEN)
def test_an_address_that_must_not_be_called_is_refused_in_any_notation(
    start: Start, field: str, url: str
) -> None:
    service = start(TIMERS_ALLOW_PRIVATE="off")
    problem = assert_problem(service.post({"seconds": 1, "url": URL, field: url}), 422)
    (fault,) = problem["errors"]
    assert fault["field"] == field
    assert "must not be called" in fault["message"]
    assert service.list() == []


@pytest.mark.parametrize("url", ["https://1.1.1.1/a", "http://localhost/", "http://name.internal/"])
def test_a_public_address_is_accepted_and_names_are_not_looked_up(start: Start, url: str) -> None:
    service = start(TIMERS_ALLOW_PRIVATE="off")
    assert service.post({"seconds": 1, "url": url, "on_failure_url": url}).status_code == 201


def test_an_offline_server_may_call_this_machine_and_its_network(service: Service) -> None:
    for url in ("http://127.0.0.1:9000/hook", "http://[::1]/", "http://0.0.0.0", "http://10.0.0.1"):
        assert service.post({"seconds": 1, "url": url}).status_code == 201


def test_an_address_of_an_allowed_network_is_accepted(start: Start) -> None:
    service = start(TIMERS_ALLOW_PRIVATE="off", TIMERS_ALLOWED_NETWORKS="10.1.0.0/16")
    assert service.post({"seconds": 1, "url": "http://10.1.2.3/"}).status_code == 201
    assert service.post({"seconds": 1, "url": "http://10.2.2.3/"}).status_code == 422


# Moving


def test_a_timer_is_moved(service: Service) -> None:
    timer_id = service.set(30)
    response = service.request("PATCH", f"/timers/{timer_id}", b'{"minutes": 2}', JSON)
    assert (response.status_code, response.json_body) == (200, {"id": timer_id, "time_left": 120})
    assert service.get(f"/timers/{timer_id}").json_body["time_left"] == 120


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"{}", 422), (b'{"seconds": -1}', 422), (b'{"seconds": 1, "url": "x"}', 422)],
)
def test_a_wrong_move_changes_nothing(service: Service, body: bytes, status: int) -> None:
    timer_id = service.set(30)
    assert_problem(service.request("PATCH", f"/timers/{timer_id}", body, JSON), status)
    assert service.get(f"/timers/{timer_id}").json_body["time_left"] == 30


def test_a_timer_that_has_fired_is_not_moved(service: Service) -> None:
    timer_id = service.set(30)
    service.settle(timer_id, Status.FIRED)
    response = service.request("PATCH", f"/timers/{timer_id}", b'{"minutes": 2}', JSON)
    assert assert_problem(response, 409)["type"].endswith("timer-expired")


# Attempts and dead letters


def test_the_attempts_of_a_timer_are_listed_oldest_first(service: Service) -> None:
    timer_id = service.set(30)
    assert service.get(f"/timers/{timer_id}/attempts").json_body == []
    service.settle(timer_id, Status.PENDING, next_attempt_at=START + 40_000)
    service.settle(timer_id, Status.FIRED)

    first, second = service.get(f"/timers/{timer_id}/attempts").json_body

    assert first == {
        "call": "webhook",
        "at": rfc3339(START + 29_950),
        "lateness_ms": 50,
        "duration_ms": 50,
        "status": 500,
        "error": "HTTP 500",
    }
    assert (second["status"], second["error"]) == (204, None)


def test_a_list_says_why_a_timer_failed(service: Service) -> None:
    service.settle(service.set(30), Status.FAILED)
    (item,) = service.get("/timers?status=failed").json_body
    assert item["last_error"] == "HTTP 500"


def test_a_failed_timer_is_replayed(service: Service) -> None:
    timer_id = service.set(30)
    service.settle(timer_id, Status.FAILED)

    response = service.request("POST", f"/timers/{timer_id}/replay")

    assert (response.status_code, response.json_body) == (202, {"id": timer_id})
    assert service.list("?status=pending") == [timer_id]
    assert service.get(f"/timers/{timer_id}").json_body["time_left"] == 0
    again = service.request("POST", f"/timers/{timer_id}/replay")
    assert assert_problem(again, 409)["type"].endswith("timer-not-failed")


def test_failed_timers_are_counted_before_they_are_replayed(service: Service) -> None:
    for url in ("https://a.example/1", "https://a.example/2", "https://b.example/"):
        service.settle(service.set(30, url), Status.FAILED)

    def replay(**body: object) -> Any:
        response = service.request("POST", "/timers/replay", json.dumps(body).encode(), JSON)
        assert response.status_code == 200
        return response.json_body

    counted = {"matching": 2, "replayed": 0, "next": None}
    assert replay(url_prefix="https://a.") == counted
    assert service.list("?status=failed") == [3, 2, 1]
    assert replay(url_prefix="https://a.", dry_run=False) == counted | {"replayed": 2}
    assert service.list("?status=failed") == [3]
    assert replay(failed_until=rfc3339(START))["matching"] == 0
    assert replay(failed_from="2020-01-01T00:00:00+02:00", dry_run=False)["replayed"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"dry_run": 0}, "dry_run"),
        ({"per_second": 0}, "per_second"),
        ({"per_second": 10_001}, "per_second"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "M" * 65}, "cursor"),
        ({"failed_from": "yesterday"}, "failed_from"),
        ({"failed_from": "2026-01-01T00:00:00"}, "failed_from"),
        ({"failed_from": "20260101"}, "failed_from"),
        ({"failed_from": "1767225600"}, "failed_from"),
        ({"failed_from": 1767225600}, "failed_from"),
        ({"failed_from": "2026-01-01"}, "failed_from"),
        ({"failed_from": "2026-01-01T00:00Z"}, "failed_from"),
        ({"failed_from": "2026-02-30T00:00:00Z"}, "failed_from"),
        ({"failed_until": "2026-01-01T00:00:00+24:00"}, "failed_until"),
        ({"failed_until": "0000-01-01T00:00:00Z"}, "failed_until"),
        ({"failed_until": "\u0662026-01-01T00:00:00Z"}, "failed_until"),
        ({"status": "fired"}, "status"),
    ],
)
def test_a_wrong_replay_replays_nothing(
    service: Service, body: dict[str, object], field: str
) -> None:
    service.settle(service.set(30), Status.FAILED)
    response = service.request("POST", "/timers/replay", json.dumps(body).encode(), JSON)
    assert [fault["field"] for fault in assert_problem(response, 422)["errors"]] == [field]
    assert service.list("?status=failed") == [1]


@pytest.mark.parametrize("timer_id", NO_IDS)
@pytest.mark.parametrize(("method", "rest"), [("GET", "/attempts"), ("POST", "/replay")])
def test_an_invalid_id_has_neither_attempts_nor_a_replay(
    service: Service, timer_id: str, method: str, rest: str
) -> None:
    assert_problem(service.request(method, f"/timers/{timer_id}{rest}"), 404)


def test_a_pending_timer_is_fired_now(service: Service) -> None:
    timer_id = service.set(seconds=600)
    service.clock.advance(1_000)
    response = service.request("POST", f"/timers/{timer_id}/fire")
    assert (response.status_code, response.json_body) == (202, {"id": timer_id})

    timer = service.store.get(DEFAULT_TENANT, timer_id)
    assert timer.due_at == timer.next_attempt_at == service.clock.now
    assert service.get(f"/timers/{timer_id}").json_body == {"id": timer_id, "time_left": 0}
    assert [wakeup.id for wakeup in all_due(service.store, int(service.clock.now), 10)] == [1]


def test_a_retry_is_made_now_and_counts_as_the_next_attempt(service: Service) -> None:
    timer_id = service.set(seconds=5)
    due_at = service.store.get(DEFAULT_TENANT, timer_id).due_at
    service.settle(timer_id, Status.PENDING, next_attempt_at=START + 3_600_000)
    assert service.request("POST", f"/timers/{timer_id}/fire").status_code == 202

    timer = service.store.get(DEFAULT_TENANT, timer_id)
    assert (timer.attempts, timer.due_at) == (1, due_at)
    assert timer.next_attempt_at == service.clock.now


def test_a_timer_in_flight_or_settled_is_not_fired(service: Service) -> None:
    in_flight, fired = service.set(seconds=0), service.set(seconds=0)
    service.claim(in_flight)
    service.settle(fired, Status.FIRED)
    for timer_id, code in ((in_flight, "timer-in-flight"), (fired, "timer-settled")):
        response = service.request("POST", f"/timers/{timer_id}/fire")
        assert assert_problem(response, 409)["type"] == f"urn:webhook-timers:{code}"
    assert_problem(service.request("POST", "/timers/9/fire"), 404)
