"""API keys and tenants on both engines: no request without a key, and no timer of another tenant.

The tests call every route of the app, so also those that are added later. If no body or query of
``INPUTS`` can make a route succeed, a test fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from chalice.app import Chalice

from app import create_app
from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.domain import api_key
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Status, Timer
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.api_keys import AUTHORIZER_CACHE_TTL_S, ApiKeys
from chalicelib.service.ports import ApiKeyStore
from local.gateway import Gateway
from tests.support.clock import ManualClock
from tests.support.dynamodb import empty_table
from tests.support.factories import DUE, Store, claimed, set_timer, settled
from tests.support.service import service_on
from tests.support.stores import FakeWakingStore
from tests.support.wsgi import GatewayResponse, send_request, with_body

PUBLIC = {("GET", "/"), ("GET", "/health"), ("GET", "/openapi.json")}
"""The routes without a key."""

SECRET = "https://a-secret-of-acme.example/hook"
NOT_OURS = "acme"
BOUND_ID = re.compile(r"\{[^}]+\}")


@dataclass(frozen=True)
class Input:
    """A body and a query. For every route, one of ``INPUTS`` must succeed."""

    body: bytes = b""
    query: str = ""


INPUTS = [
    Input(),
    Input(b"{}"),
    Input(b'{"seconds": 30}'),
    Input(b'{"seconds": 30, "url": "https://other.example/hook"}'),
    Input(b'{"dry_run": false}'),
    Input(query="status=failed"),
    Input(query="status=pending&limit=1"),
    Input(query="limit=1000"),
    Input(query="order=due"),
    Input(b'{"timers": [{"seconds": 30, "url": "https://other.example/hook"}]}'),
    Input(b'{"url_prefix": "https://", "dry_run": false}'),
    Input(b'{"url_prefix": "https://", "dry_run": false, "delay": "1h"}'),
    Input(b'{"ids": [1, 2, 3, 4, 5], "dry_run": false}'),
    Input(b'{"ids": [1, 2, 3, 4, 5], "dry_run": false, "delay": "1h"}'),
]


@dataclass
class Service:
    """The API with keys behind the offline gateway, on a store and clocks of the test."""

    app: Chalice
    gateway: Gateway
    store: Store
    api_keys: ApiKeys
    seconds: list[float]
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, tenant: str) -> str:
        if tenant not in self.tokens:
            self.tokens[tenant] = f"Bearer {self.api_keys.issue(tenant).text}"
        return self.tokens[tenant]

    def routes(self) -> list[tuple[str, str]]:
        return [(method, path) for path, methods in self.app.routes.items() for method in methods]

    def closed(self) -> list[tuple[str, str]]:
        return [route for route in self.routes() if route not in PUBLIC]

    def request(
        self, method: str, path: str, token: str | None, given: Input | None = None
    ) -> GatewayResponse:
        sent = given or Input()
        environment = with_body(sent.body) | {
            "CONTENT_TYPE": "application/json",
            "QUERY_STRING": sent.query,
            "HTTP_HOST": "timers.example",
        }
        if token is not None:
            environment["HTTP_AUTHORIZATION"] = token
        response = send_request(self.gateway, method, path, **environment)
        assert response.code < 500, response
        return response

    def set(self, tenant: str, url: str = "https://other.example/hook") -> int:
        body = json.dumps({"seconds": 30, "url": url}).encode()
        response = self.request("POST", "/timers", self.token(tenant), Input(body))
        assert response.code == 201, response
        return int(response.document["id"])

    def everything(self, tenant: str) -> list[Timer]:
        """Return every timer of a tenant as it is stored."""
        timers: list[Timer] = []
        before = None
        while True:
            page = self.store.list(tenant, before=before, status=None, limit=1_000)
            timers += page.timers
            if page.before is None:
                return timers
            before = page.before


@pytest.fixture(params=["embedded", "aws"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, ApiKeyStore]]:
    if request.param == "embedded":
        timers = SQLiteTimerStore.in_memory()
        yield timers, SQLiteApiKeyStore(DataFolder(tmp_path))
        timers.close()
    else:
        client = request.getfixturevalue("dynamodb")
        with empty_table(client) as table:
            rows = DynamoDBTimerStore(client, table, ManualClock())
            yield FakeWakingStore(rows), DynamoDBApiKeyStore(client, table)


@pytest.fixture
def service(stores: tuple[Store, ApiKeyStore]) -> Service:
    timers, keys = stores
    clock, drawn = ManualClock(), count()
    api_keys = ApiKeys(keys, clock, lambda length: next(drawn).to_bytes(length, "big"))
    app = create_app(service_on(timers, clock, api_keys=keys, TIMERS_AUTH="keys"))
    seconds = [1_000.0]
    return Service(app, Gateway(app, lambda: seconds[0]), timers, api_keys, seconds)


@pytest.fixture
def acme(service: Service) -> list[Timer]:
    """Return the timers of tenant acme: fired, failed, in flight and pending."""
    service.token("acme")
    for status in (Status.FIRED, Status.FAILED):
        settled(service.store, set_timer(service.store, tenant="acme", url=SECRET), status)
    claimed(service.store, set_timer(service.store, tenant="acme", url=SECRET))
    for _ in range(3):
        service.set("acme", SECRET)
    timers = service.everything("acme")
    assert [timer.id for timer in timers] == [6, 5, 4, 3, 2, 1]
    return timers


def assert_unauthorized(response: GatewayResponse) -> None:
    assert response.code == 401, response
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.document["type"] == "urn:webhook-timers:unauthorized"


def assert_nothing_of_acme(response: GatewayResponse) -> None:
    text = response.body.decode() + str(response.headers)
    assert SECRET not in text
    assert NOT_OURS not in text


def of_timer(path: str, timer_id: int) -> str:
    return BOUND_ID.sub(str(timer_id), path)


# Requests without a key


def test_every_route_asks_for_a_key_except_index_and_health(service: Service) -> None:
    assert {route for route in service.routes() if not guarded(service, route)} == PUBLIC
    for method, path in PUBLIC:
        assert service.request(method, path, None).code == 200


def guarded(service: Service, route: tuple[str, str]) -> bool:
    method, path = route
    authorizer = service.app.routes[path][method].authorizer
    return authorizer is not None and authorizer.name == "authorizer"


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "Bearer",
        "Bearer x",
        "Basic YWNtZTphY21l",
        "Bearer acme",
        f"Bearer {api_key.encode(bytes(32))[:-1]}",
        f"Bearer {api_key.encode(bytes([9]) * 32)}",
        "Bearer {acme} {acme}",
        "Basic {acme}",
        "Bearer {acme}x",
        "{acme}",
    ],
)
def test_without_a_good_key_every_route_is_401_and_changes_nothing(
    service: Service, acme: list[Timer], token: str | None
) -> None:
    if token is not None:
        token = token.replace("{acme}", service.tokens["acme"].removeprefix("Bearer "))
    for method, path in service.closed():
        for timer_id in (1, 6, 99):
            for given in INPUTS:
                response = service.request(method, of_timer(path, timer_id), token, given)
                assert_unauthorized(response)
    assert service.everything("acme") == acme
    assert service.everything("default") == []


def test_the_api_itself_refuses_requests_that_passed_the_gateway_without_a_tenant(
    service: Service, acme: list[Timer]
) -> None:
    for method, path in service.closed():
        for authorizer in (None, {}, {"principalId": "acme"}):
            event: dict[str, Any] = {
                "requestContext": {
                    "httpMethod": method,
                    "resourcePath": path,
                    "path": path,
                    "authorizer": authorizer,
                },
                "headers": {"authorization": service.tokens["acme"]},
                "multiValueQueryStringParameters": None,
                "pathParameters": {name[1:-1]: "1" for name in BOUND_ID.findall(path)},
                "stageVariables": None,
                "body": b"",
                "isBase64Encoded": False,
            }
            response = service.app(event, None)
            assert response["statusCode"] == 401, (method, path, response)
            assert response["headers"]["WWW-Authenticate"] == "Bearer"
    assert service.everything("acme") == acme


def test_a_revoked_key_opens_nothing_a_minute_later(service: Service) -> None:
    token = service.token("acme")
    (issued,) = service.api_keys.list()
    assert service.request("GET", "/timers", token).code == 200
    service.api_keys.revoke(issued.id)
    service.seconds[0] += AUTHORIZER_CACHE_TTL_S
    for method, path in service.closed():
        assert_unauthorized(service.request(method, of_timer(path, 1), token))


# Requests with a key of another tenant


def test_no_request_of_another_tenant_finds_a_timer(service: Service, acme: list[Timer]) -> None:
    for method, path in service.closed():
        other = service.token(f"other-{len(service.tokens)}")
        for given in INPUTS:
            for timer in acme:
                response = service.request(method, of_timer(path, timer.id), other, given)
                assert_nothing_of_acme(response)
                if "{" in path:
                    # A key that is another tenant's too names a timer of the caller's own.
                    allowed = (201, 200, 400, 422) if method == "PUT" else (400, 404, 422)
                    assert response.code in allowed, (method, path, given, response)
            assert service.everything("acme") == acme, (method, path, given)


def test_no_request_for_an_own_timer_touches_a_timer_with_the_same_id_of_another_tenant(
    service: Service, acme: list[Timer]
) -> None:
    for method, path in service.closed():
        other = f"other-{len(service.tokens)}"
        for given in INPUTS:
            for timer_id in [service.set(other) for _ in range(2)]:
                response = service.request(
                    method, of_timer(path, timer_id), service.token(other), given
                )
                assert_nothing_of_acme(response)
            assert service.everything("acme") == acme, (method, path, given)


def test_the_id_of_another_tenants_timer_responds_like_an_unknown_id(
    service: Service, acme: list[Timer]
) -> None:
    other = service.token("other")
    for method, path in service.closed():
        if "{" not in path or method == "PUT":
            continue
        codes = set()
        for given in INPUTS:
            there = service.request(method, of_timer(path, 4), other, given)
            nowhere = service.request(method, of_timer(path, 9), other, given)
            assert (there.status, there.headers) == (nowhere.status, nowhere.headers)
            assert there.body.replace(b"4", b"9") == nowhere.body.replace(b"4", b"9")
            codes.add(there.code)
        assert 404 in codes, f"no input gets as far as looking for a timer: {method} {path}"


def test_every_route_works_for_the_owner_of_the_timers(service: Service) -> None:
    """Or the tests above would prove nothing: a route that always refuses leaks nothing."""
    for method, path in service.closed():
        tenant = f"t{len(service.tokens)}"
        failed, fired = (service.set(tenant) for _ in range(2))
        for timer_id, status in ((failed, Status.FAILED), (fired, Status.FIRED)):
            settled(service.store, service.store.get(tenant, timer_id), status)
        pending = service.set(tenant)
        by_key = Input(b'{"seconds": 30, "url": "https://other.example/hook"}')
        service.request("PUT", f"/timers/by-key/{pending}", service.token(tenant), by_key)
        responses = [
            service.request(method, of_timer(path, timer_id), service.token(tenant), given)
            for given in INPUTS
            for timer_id in (pending, failed)
        ]
        assert any(response.code < 300 for response in responses), (
            f"no input succeeds: add one to INPUTS for {method} {path}"
        )


def test_ids_count_per_tenant_and_a_path_names_the_timer_of_the_caller(service: Service) -> None:
    assert [service.set("acme", SECRET) for _ in range(3)] == [1, 2, 3]
    assert service.set("other") == 1
    other = service.token("other")
    before = service.everything("acme")

    assert [item["url"] for item in service.request("GET", "/timers", other).document] == [
        "https://other.example/hook"
    ]
    assert service.request("GET", "/timers/1", other).document["id"] == 1
    assert service.request("GET", "/timers/2", other).code == 404
    assert service.request("DELETE", "/timers/1", other).code == 204
    assert service.request("DELETE", "/timers/1", other).code == 404
    assert service.set("other") == 2
    assert service.request("DELETE", "/timers", other).code == 200
    assert service.everything("other") == []
    assert service.everything("acme") == before


@pytest.mark.parametrize("cursor", ["Mg", "NQ", "OTk5"])
def test_a_cursor_of_another_tenants_list_shows_own_timers_only(
    service: Service, acme: list[Timer], cursor: str
) -> None:
    service.set("other")
    query = Input(query=f"cursor={cursor}&limit=1")
    response = service.request("GET", "/timers", service.token("other"), query)
    assert response.code == 200
    assert [item["id"] for item in response.document] == [1]
    assert_nothing_of_acme(response)


def test_the_name_of_one_tenant_may_begin_with_the_name_of_another(service: Service) -> None:
    for tenant in ("a", "a-0", "a-00", "0"):
        assert service.set(tenant) == 1
    service.request("DELETE", "/timers", service.token("a"))
    assert [len(service.everything(tenant)) for tenant in ("a", "a-0", "a-00", "0")] == [0, 1, 1, 1]


def test_the_webhooks_of_two_tenants_have_different_ids(service: Service) -> None:
    webhook_ids = {
        prepare(service.store.get(tenant, service.set(tenant)), service.store.identity(), DUE)
        .headers["webhook-id"]
        .removeprefix(service.store.identity())
        for tenant in ("acme", "other")
    }
    assert webhook_ids == {".acme.1", ".other.1"}


def test_keys_are_never_listed_as_timers(service: Service, acme: list[Timer]) -> None:
    text = service.request("GET", "/timers", service.tokens["acme"]).body.decode()
    (issued,) = service.api_keys.list()
    assert issued.id not in text
    assert service.tokens["acme"].removeprefix("Bearer ") not in text
