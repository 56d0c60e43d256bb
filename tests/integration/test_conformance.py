"""Every response of the service is one that its OpenAPI document describes, on both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from chalicelib.domain.timer import DEFAULT_TENANT, Status, Timer
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.ports import ApiKeyStore
from local.gateway import Gateway
from tests.support import document
from tests.support.clock import ManualClock
from tests.support.explorer import explore
from tests.support.factories import DELAY_MS, Store, claimed, set_timer, settlement_of
from tests.support.moto_stage import empty_stage
from tests.support.service import service_on
from tests.support.wsgi import Environ, StartResponse, respond

TENANT = "acme"
STEP_MS = 100
OTHERS_EVERY = 5
RETRY_MS = 5_000
FATES = (None, Status.FAILED, "on the wire", None, Status.FIRED, Status.PENDING)
WRONG_KEY = "wt_" + "A" * 43
MET = {
    "GET /": {200, 405},
    "GET /health": {200, 405},
    "POST /timers": {201, 400, 415, 422},
    "GET /timers": {200, 422},
    "DELETE /timers": {200},
    "POST /timers/replay": {200, 400, 415, 422},
    "GET /timers/{timer_id}": {200, 404},
    "PATCH /timers/{timer_id}": {200, 400, 404, 409, 415, 422},
    "DELETE /timers/{timer_id}": {204, 404, 409},
    "GET /timers/{timer_id}/attempts": {200, 404},
    "POST /timers/{timer_id}/fire": {202, 404, 409},
    "POST /timers/{timer_id}/replay": {202, 404, 409},
}
"""The statuses that every run must have met, so that a run that reached nothing fails."""


@dataclass
class Service:
    """A gateway whose requests take time and which has a second client.

    The id of a timer decides what happens to it: it stays as it is, or is in flight, or has fired,
    failed or been attempted.
    """

    gateway: Gateway
    store: Store
    clock: ManualClock
    tenant: str = DEFAULT_TENANT
    key: str | None = None
    highest_id: int = 0
    requests: int = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        locations: list[str] = []

        def start(status: str, headers: list[tuple[str, str]]) -> object:
            locations.extend(value for name, value in headers if name == "Location")
            return start_response(status, headers)

        self._pass_time()
        response = respond(self.gateway, environ, start)
        for path in locations:
            self._apply_fate(self.store.get(self.tenant, int(path.removeprefix("/timers/"))))
        return response

    def _pass_time(self) -> None:
        self.clock.advance(STEP_MS)
        self.requests += 1
        if self.requests % OTHERS_EVERY == 0:
            self._apply_fate(
                set_timer(self.store, tenant=self.tenant, due_at=int(self.clock.now) + DELAY_MS)
            )

    def _apply_fate(self, timer: Timer) -> None:
        """Do to ``timer``, at its own time, what its id decides."""
        self.highest_id = timer.id
        fate = FATES[timer.id % len(FATES)]
        if fate is None:
            return
        at = timer.wakeup().at
        held = claimed(self.store, timer, now=at)
        if fate is Status.PENDING:
            self.store.settle(settlement_of(held, now=at, retry_at=at + RETRY_MS))
        elif isinstance(fate, Status):
            self.store.settle(settlement_of(held, now=at, status=fate))


def api_on(store: Store, clock: ManualClock, keys: ApiKeyStore | None = None) -> Service:
    """Return the API on ``store``; with ``keys`` it asks for one, and the service knows one."""
    auth = "none" if keys is None else "keys"
    app = create_app(service_on(store, clock, api_keys=keys, TIMERS_AUTH=auth))
    service = Service(Gateway(app), store, clock)
    if keys is not None:
        issued = ApiKeys(keys, clock, lambda count: b"\x01" * count).issue(TENANT)
        service.tenant, service.key = TENANT, issued.text
    return service


@pytest.fixture
def store() -> Iterator[SQLiteTimerStore]:
    store = SQLiteTimerStore.in_memory()
    yield store
    store.close()


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeyStore:
    return SQLiteApiKeyStore(DataFolder(tmp_path))


def assert_documented(
    service: Service, contract: dict[str, Any], examples: int, without: Sequence[str] = ()
) -> None:
    """Check that no response of ``service`` was wrong, and that every status of ``MET`` came."""
    explored = explore(
        contract,
        service,
        examples=examples,
        key=service.key,
        recent=lambda: service.highest_id,
        without=without,
    )
    assert not explored.failures, "\n\n".join(explored.failures)
    missed = {
        operation: statuses - explored.statuses(operation)
        for operation, statuses in MET.items()
        if not statuses <= explored.statuses(operation)
    }
    assert not missed


def test_without_keys_every_response_is_documented(store: SQLiteTimerStore) -> None:
    service = api_on(store, ManualClock())
    assert_documented(service, document.without_keys(), examples=20)


def test_with_keys_every_response_is_documented(store: SQLiteTimerStore, keys: ApiKeyStore) -> None:
    service = api_on(store, ManualClock(), keys)
    # Schemathesis 4.32.5 cannot make the calls of this check to an application in its process;
    # the test below does without, and asks for more.
    assert_documented(service, document.read(), examples=20, without=["ignored_auth"])


def test_on_aws_every_response_is_documented() -> None:
    clock = ManualClock()
    with empty_stage(clock) as stage:
        service = api_on(stage.waking_store(), clock)
        assert_documented(service, document.without_keys(), examples=10)


@pytest.mark.parametrize("key", [None, WRONG_KEY])
def test_with_an_unknown_key_every_response_is_a_documented_refusal(
    store: SQLiteTimerStore, keys: ApiKeyStore, key: str | None
) -> None:
    service = api_on(store, ManualClock(), keys)
    timer = set_timer(store, tenant=TENANT)
    contract = document.read()
    explored = explore(contract, service, examples=3, key=key)
    assert not explored.failures, "\n\n".join(explored.failures)
    for method, path, definition in document.operations(contract):
        statuses = explored.statuses(f"{method} {path}")
        if "security" in definition:
            assert 401 in statuses
            assert statuses <= {401, 404, 405}
    assert store.get(TENANT, timer.id) == timer


def not_saying_that_it_refuses(contract: dict[str, Any]) -> None:
    del contract["paths"]["/timers"]["post"]["responses"]["422"]


def promising_more(contract: dict[str, Any]) -> None:
    contract["components"]["schemas"]["TimerId"]["required"] += ["url"]


def promising_another_header(contract: dict[str, Any]) -> None:
    response = contract["paths"]["/timers"]["post"]["responses"]["201"]
    response["headers"]["ETag"] = {"required": True, "schema": {}}


def allowing_less(contract: dict[str, Any]) -> None:
    contract["components"]["schemas"]["Seconds"]["maximum"] = 60


def allowing_more(contract: dict[str, Any]) -> None:
    contract["components"]["schemas"]["Seconds"]["maximum"] += 1


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (not_saying_that_it_refuses, "status_code_conformance"),
        (promising_more, "response_schema_conformance"),
        (promising_another_header, "response_headers_conformance"),
        (allowing_less, "negative_data_rejection"),
        (allowing_more, "positive_data_acceptance"),
    ],
)
def test_a_wrong_document_is_detected(
    store: SQLiteTimerStore,
    lie: Callable[[dict[str, Any]], object],
    check: str,
) -> None:
    service = api_on(store, ManualClock())
    contract = document.without_keys()
    lie(contract)
    contract["paths"] = {"/timers": contract["paths"]["/timers"]}
    # Few fields, so that few examples meet the limit that lies.
    body = contract["components"]["schemas"]["SetTimer"]
    body["properties"] = {name: body["properties"][name] for name in ("seconds", "url")}
    body["required"] = ["seconds", "url"]
    del body["oneOf"]
    del contract["paths"]["/timers"]["post"]["responses"]["201"]["links"]
    failures = explore(contract, service, examples=3).failures
    assert any(failure.startswith(f"POST /timers: {check}") for failure in failures), failures
