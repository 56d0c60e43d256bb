"""What the API shows of timers beyond their status, and what it does to many at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app import api as api_routes
from chalicelib.domain.moment import rfc3339
from chalicelib.domain.timer import DEFAULT_TENANT, Status
from chalicelib.domain.webhook import Outcome
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.rest.service_document import service_document
from tests.integration.test_timer_options import URL, Api, api
from tests.support.clock import START, ManualClock
from tests.support.factories import claim_of
from tests.support.service import service_on

__all__ = ["api"]

MINUTE = 60_000


def links(api: Api, path: str) -> list[int]:
    """Return the ids of a list, page after page."""
    found: list[int] = []
    for _ in range(500):
        response = api.send("GET", path)
        assert response.status_code == 200, response.json_body
        found += [item["id"] for item in response.json_body]
        link = response.headers.get("Link")
        if link is None:
            return found
        path = link.partition(">")[0].removeprefix("<")
    raise AssertionError("the list has no end")


def test_the_next_timers_come_first_if_that_is_asked_for(api: Api) -> None:
    ids = [api.set(minutes=minutes).id for minutes in (3, 1, 2)]
    assert links(api, "/timers?order=due&limit=1") == [ids[1], ids[2], ids[0]]
    assert links(api, f"/timers?order=due&due_after={rfc3339(START + MINUTE)}") == [ids[2], ids[0]]
    assert links(api, f"/timers?due_before={rfc3339(START + 2 * MINUTE)}&limit=1") == [ids[1]]


def test_a_list_can_be_of_one_label(api: Api) -> None:
    ids = [api.set(seconds=1, labels=labels).id for labels in (["a"], ["b", "a"], ["b"])]
    assert links(api, "/timers?label=a&limit=1") == [ids[1], ids[0]]
    assert links(api, "/timers?label=a&status=failed") == []


@pytest.mark.parametrize(
    ("query", "blamed"),
    [
        ("order=id", "order"),
        ("order=due&status=fired", "status"),
        ("order=due&cursor=MTAx", "cursor"),
        ("cursor=MS4x", "cursor"),
        ("label=a%20b", "label"),
        ("due_after=yesterday", "due_after"),
        ("due_until=2026-01-01T00:00:00Z", "due_until"),
    ],
)
def test_a_wrong_query_is_refused_by_name(api: Api, query: str, blamed: str) -> None:
    response = api.send("GET", f"/timers?{query}")
    assert response.status_code == 422
    assert [fault["field"] for fault in response.json_body["errors"]] == [blamed]


def test_the_details_have_everything_but_values(api: Api) -> None:
    timer = api.set(
        delay="1m",
        method="PUT",
        headers={"Authorization": "Bearer secret"},
        body={"secret": 1},
        labels=["order:7"],
        retry=["30s", "1h30m"],
        max_lateness="10m",
        repeatable=True,
    )
    response = api.send("GET", f"/timers/{timer.id}/details")
    shown = response.json_body
    assert "secret" not in json.dumps(shown)
    assert shown["headers"] == ["Authorization"]
    assert shown["body"] == {"bytes": 12, "content_type": "application/json"}
    assert (shown["retry"], shown["max_lateness"]) == (["30s", "1h30m"], "10m")
    assert (shown["method"], shown["labels"], shown["repeatable"]) == ("PUT", ["order:7"], True)
    assert shown["next"] == {"at": shown["due_at"], "because": "due then; attempt 1 of 3"}
    api.fire(timer, Outcome(status=503, retry_after=60))
    coming = api.send("GET", f"/timers/{timer.id}/details").json_body["next"]
    assert coming["because"] == "HTTP 503; attempt 2 of 3; Retry-After 60 s"
    assert coming["at"] == rfc3339(int(api.clock.now) + MINUTE)
    api.fire(timer, Outcome(status=204))
    assert api.send("GET", f"/timers/{timer.id}/details").json_body["next"] is None


def test_the_document_is_of_what_runs(api: Api) -> None:
    response = api.send("GET", "/openapi.json")
    document = response.json_body
    assert (response.status_code, document["openapi"]) == (200, "3.1.0")
    routes = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    assert routes == set(api.send("GET", "/").json_body["routes"])
    assert "securitySchemes" not in document["components"]
    assert document["servers"] == [{"url": "."}]


def test_the_document_has_the_limits_of_the_settings() -> None:
    store = SQLiteTimerStore.in_memory()
    service = service_on(
        store, ManualClock(), TIMERS_RETRY_DELAYS="1,2", TIMERS_SEND_TIMEOUT="3", TIMERS_AUTH="keys"
    )
    document = json.loads(
        service_document(api_routes.routes_of(service.settings), service.settings)
    )
    store.close()
    for model in ("SetTimer", "SetKeyedTimer"):
        fields = document["components"]["schemas"][model]["properties"]
        assert (fields["max_attempts"]["maximum"], fields["timeout"]["maximum"]) == (3, 3)
    assert "securitySchemes" in document["components"]


# Many at once


def bulk(api: Api, verb: str, **fields: Any) -> Any:
    """Send a request about many timers, and go on until it has ended."""
    total: dict[str, int] = {}
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        response = api.send("POST", f"/timers/{verb}", fields | more)
        assert response.status_code == 200, response.json_body
        counts = dict(response.json_body)
        cursor = counts.pop("next")
        total = {name: total.get(name, 0) + count for name, count in counts.items()}
        if cursor is None:
            return total


def test_many_timers_are_counted_first_and_then_cancelled(api: Api) -> None:
    ids = [api.set(minutes=1, labels=["a"]).id for _ in range(3)]
    other = api.set(minutes=1).id
    assert bulk(api, "cancel", label="a") == {"matching": 3, "cancelled": 0}
    assert bulk(api, "cancel", label="a", dry_run=False) == {"matching": 3, "cancelled": 3}
    assert bulk(api, "cancel", label="a", dry_run=False) == {"matching": 0, "cancelled": 0}
    assert links(api, "/timers") == [other]
    assert ids


def test_many_timers_are_fired_now(api: Api) -> None:
    near, far = api.set(minutes=1), api.set(minutes=9)
    until = rfc3339(START + 5 * MINUTE)
    assert bulk(api, "fire", due_until=until, dry_run=False) == {"matching": 1, "fired": 1}
    assert api.get(near.id).next_attempt_at == START
    assert api.get(far.id).next_attempt_at == START + 9 * MINUTE


def test_many_timers_are_moved(api: Api) -> None:
    ids = [api.set(minutes=1, url=f"{URL}/{number}").id for number in range(3)]
    moved = bulk(api, "move", ids=[*ids[:2], 999], delay="1h", dry_run=False)
    assert moved == {"matching": 2, "moved": 2}
    assert [api.get(each).due_at - START for each in ids] == [60 * MINUTE, 60 * MINUTE, MINUTE]
    assert bulk(api, "move", url_prefix=f"{URL}/2", minutes=2) == {"matching": 1, "moved": 0}


def test_those_in_flight_or_settled_are_left_as_they_are(api: Api) -> None:
    fired, flying, waiting = (api.set(seconds=1, labels=["a"]) for _ in range(3))
    api.fire(fired, Outcome(status=204))
    wakeup = api.get(flying.id).wakeup()
    api.store.claim(claim_of(wakeup, "u", now=int(api.clock.now)))
    assert bulk(api, "cancel", label="a", dry_run=False) == {"matching": 2, "cancelled": 1}
    assert api.get(fired.id).status is Status.FIRED
    assert api.get(flying.id).lease is not None
    assert waiting.id not in links(api, "/timers")


@pytest.mark.parametrize("verb", ["cancel", "fire", "move"])
@pytest.mark.parametrize("fields", [{}, {"dry_run": False}, {"url_prefix": ""}])
def test_a_request_that_does_not_say_which_is_refused(api: Api, verb: str, fields: Any) -> None:
    when = {"seconds": 1} if verb == "move" else {}
    response = api.send("POST", f"/timers/{verb}", fields | when)
    assert response.status_code == 422
    assert "which timers" in response.json_body["detail"]


def test_failed_timers_are_replayed_by_label_and_by_id(api: Api) -> None:
    first, second = (api.set(seconds=1, labels=[name], max_attempts=1) for name in "ab")
    for timer in (first, second):
        api.fire(timer, Outcome(status=500))
    assert bulk(api, "replay", label="a") == {"matching": 1, "replayed": 0}
    assert bulk(api, "replay", ids=[second.id], dry_run=False) == {"matching": 1, "replayed": 1}
    assert api.store.get(DEFAULT_TENANT, second.id).status is Status.PENDING
    assert api.store.get(DEFAULT_TENANT, first.id).status is Status.FAILED
