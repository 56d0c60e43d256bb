"""When a timer is due, what it sends and how long it is tried, as clients ask for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
from chalice.test import Client, HTTPResponse

from app import create_app
from chalicelib.domain.claim import Claimed
from chalicelib.domain.content import Content
from chalicelib.domain.moment import rfc3339
from chalicelib.domain.timer import DEFAULT_TENANT, Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.attempt import DeliveryPolicy, Signer, attempt, run
from tests.support.clock import START, ManualClock
from tests.support.factories import LEASE_MS, claim_of
from tests.support.moto_stage import MotoStage
from tests.support.service import service_on


def http_date(epoch_ms: float) -> str:
    return formatdate(epoch_ms / 1000, usegmt=True)


def moment(after_ms: int = 0) -> str:
    """Return a moment after the start of the test, in UTC without its offset."""
    return rfc3339(START + after_ms).removesuffix("Z")


URL = "https://receiver.example/hook"
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@dataclass
class Api:
    """The API on one store."""

    client: Client
    store: Any
    clock: ManualClock

    def send(self, method: str, path: str, body: Any = None) -> HTTPResponse:
        payload = b"" if body is None else json.dumps(body).encode()
        return self.client.http.request(
            method, path, {"Content-Type": "application/json", "Host": "localhost"}, payload
        )

    def set(self, **fields: Any) -> Timer:
        response = self.send("POST", "/timers", {"url": URL} | fields)
        assert response.status_code == 201, response.json_body
        return self.get(response.json_body["id"])

    def get(self, timer_id: int) -> Timer:
        timer: Timer = self.store.get(DEFAULT_TENANT, timer_id)
        return timer

    def faults(self, **fields: Any) -> dict[str, str]:
        response = self.send("POST", "/timers", {"url": URL} | fields)
        assert response.status_code == 422, response.json_body
        return {fault["field"]: fault["message"] for fault in response.json_body["errors"]}

    def fire(self, timer: Timer, outcome: Outcome, late_ms: int = 0) -> list[Call]:
        """Make one attempt when the timer is due; return the calls that were made."""
        wakeup = self.get(timer.id).wakeup()
        self.clock.now = max(self.clock.now, wakeup.at + late_ms)
        claimed = self.store.claim(claim_of(wakeup, "t", now=int(self.clock.now)))
        assert isinstance(claimed, Claimed)
        calls: list[Call] = []

        def send(call: Call) -> Outcome:
            calls.append(call)
            return outcome

        policy = DeliveryPolicy(lease_ms=LEASE_MS, retry_delays_s=(5.0, 60.0))
        steps = attempt(claimed, Signer(store_id="s"), policy, self.clock, random=0.0)
        assert self.store.settle(run(steps, send))
        return calls


def api_on(store: Any, clock: ManualClock) -> Api:
    return Api(Client(create_app(service_on(store, clock))), store, clock)


@pytest.fixture(params=["sqlite", "dynamodb"])
def api(request: pytest.FixtureRequest) -> Api:
    clock = ManualClock()
    if request.param == "sqlite":
        store: Any = SQLiteTimerStore.in_memory()
    else:
        stage: MotoStage = request.getfixturevalue("stage")
        stage.clock = clock
        store = stage.waking_store()
    return api_on(store, clock)


# When


@pytest.mark.parametrize(
    ("fields", "due_ms"),
    [
        ({"delay": "250ms"}, 250),
        ({"delay": "1h30m"}, 90 * MINUTE),
        ({"delay": "PT4H1S"}, 4 * HOUR + SECOND),
        ({"at": moment(HOUR) + "+01:00"}, 0),
        ({"at": moment(SECOND) + "0001Z"}, SECOND + 1),
        ({"at": moment(-MINUTE) + "z"}, 0),
        ({"at": moment(DAY + HOUR), "timezone": "Europe/Berlin"}, DAY),
        ({"at": moment(MINUTE - SECOND)[:-6] + "60Z"}, MINUTE),
    ],
)
def test_a_timer_is_due_when_its_client_says(api: Api, fields: Any, due_ms: int) -> None:
    assert api.set(**fields).due_at == START + due_ms


@pytest.mark.parametrize(
    ("local", "zone", "utc"),
    [
        # Skipped in spring: the first local time that exists.
        ("2027-03-28T02:30:00", "Europe/Berlin", "2027-03-28T01:00:00.000Z"),
        ("2027-03-14T02:00:00", "America/New_York", "2027-03-14T07:00:00.000Z"),
        ("2027-10-03T02:15:00", "Australia/Lord_Howe", "2027-10-02T15:30:00.000Z"),
        # Repeated in autumn: the earlier.
        ("2027-10-31T02:30:00", "Europe/Berlin", "2027-10-31T00:30:00.000Z"),
        ("2027-11-07T01:30:00", "America/New_York", "2027-11-07T05:30:00.000Z"),
        ("2027-07-01T12:00:00.5", "Asia/Kathmandu", "2027-07-01T06:15:00.500Z"),
    ],
)
def test_local_time_follows_the_rules_of_its_zone(
    api: Api, local: str, zone: str, utc: str
) -> None:
    timer = api.set(at=local, timezone=zone)
    (item,) = api.send("GET", "/timers").json_body
    assert (item["id"], item["due_at"]) == (timer.id, utc)


@pytest.mark.parametrize(
    ("fields", "blamed", "said"),
    [
        ({}, "seconds", "say when"),
        ({"seconds": 1, "delay": "1s"}, "delay", "one way"),
        ({"seconds": 0, "at": "2028-01-01T00:00:00Z"}, "at", "one way"),
        ({"delay": "1s", "at": "2028-01-01T00:00:00Z"}, "at", "one way"),
        ({"delay": "1h90"}, "delay", '"1h90": 1h was read, then 90 has no unit'),
        ({"delay": 5}, "delay", "must be a string"),
        ({"delay": None}, "delay", "must be a string"),
        ({"delay": "522w"}, "delay", "10 years"),
        ({"at": "tomorrow"}, "at", "RFC 3339"),
        ({"at": "2026-02-30T00:00:00Z"}, "at", "exists"),
        ({"at": moment(-61 * SECOND) + "Z"}, "at", "1m1s ago"),
        ({"at": "2038-01-01T00:00:00Z"}, "at", "10 years"),
        ({"at": "2028-01-01T00:00:00"}, "at", "timezone"),
        ({"at": "9999-12-31T23:59:59-23:00"}, "at", "9999"),
        ({"at": "2028-01-01T00:00:00Z", "timezone": "UTC"}, "timezone", "offset"),
        ({"seconds": 1, "timezone": "UTC"}, "timezone", "belongs to at"),
        ({"at": "2028-01-01T00:00:00", "timezone": "Mars/Olympus"}, "timezone", "IANA"),
        ({"at": "2028-01-01T00:00:00", "timezone": "../../etc/passwd"}, "timezone", "IANA"),
    ],
)
def test_a_time_that_cannot_be_is_refused_with_the_reason(
    api: Api, fields: Any, blamed: str, said: str
) -> None:
    assert said in api.faults(**fields)[blamed]


def test_a_timer_is_moved_in_the_same_ways(api: Api) -> None:
    timer = api.set(minutes=5)
    response = api.send("PATCH", f"/timers/{timer.id}", {"delay": "1h"})
    assert response.json_body == {"id": timer.id, "time_left": 3_600}
    moved = api.send("PATCH", f"/timers/{timer.id}", {"at": moment(30 * SECOND) + "Z"})
    assert moved.json_body == {"id": timer.id, "time_left": 30}
    assert (
        api.send("PATCH", f"/timers/{timer.id}", {"at": "2020-01-01T00:00:00Z"}).status_code == 422
    )


# What is sent


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"body": "hi"}, Content(body=b"hi", content_type="text/plain; charset=utf-8")),
        (
            {"body": {"a": [1, 2.5, None, "\u00e4"]}},
            Content(body='{"a":[1,2.5,null,"\u00e4"]}'.encode(), content_type="application/json"),
        ),
        ({"body": None}, Content(body=b"null", content_type="application/json")),
        (
            {"body": "", "method": "PUT"},
            Content(method="PUT", content_type="text/plain; charset=utf-8"),
        ),
        (
            {"body_base64": "AP8="},
            Content(body=b"\x00\xff", content_type="application/octet-stream"),
        ),
        (
            {"body": "<a/>", "content_type": "application/xml"},
            Content(body=b"<a/>", content_type="application/xml"),
        ),
        (
            {"headers": {"X-A": "1", "authorization": "Bearer s"}, "append_id": False},
            Content(headers=(("X-A", "1"), ("authorization", "Bearer s")), append_id=False),
        ),
    ],
)
def test_content_is_kept_as_it_was_sent(api: Api, fields: Any, content: Content) -> None:
    timer = api.set(seconds=1, **fields)
    assert timer.content == content
    (call,) = api.fire(timer, Outcome(status=204))
    assert (call.method, call.body) == (content.method, content.body)


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"method": "TRACE"}, "method"),
        ({"method": "GET", "body": "x"}, "method"),
        ({"body": "x", "body_base64": "eA=="}, "body_base64"),
        ({"body_base64": "eA"}, "body_base64"),
        ({"body_base64": "eA==\n"}, "body_base64"),
        ({"content_type": "text/plain"}, "content_type"),
        ({"body": "x", "content_type": "text"}, "content_type"),
        ({"body": "x", "content_type": "text/plain\r\nX: 1"}, "content_type"),
        ({"body": "x" * 65_537}, "body"),
        ({"append_id": 1}, "append_id"),
        ({"headers": []}, "headers"),
        ({"headers": {f"X-{number}": "" for number in range(33)}}, "headers"),
        ({"headers": {"X": "y" * 8_192}}, "headers"),
        *(
            ({"headers": {name: "secret"}}, "headers")
            for name in (
                *("Host", "content-length", "Transfer-Encoding", "connection", "keep-alive"),
                *("TE", "trailer", "upgrade", "expect", "proxy-authorization", "webhook-id"),
                *("timer-attempt", "content-type", "", "a b", "a:b", "a\r\nb", "\u00e4"),
            )
        ),
        *(
            ({"headers": {"X-A": value}}, "headers")
            for value in ("a\r\nb: c", "a\nb", "a\x00b", " a", "a ", "\u00e4", "a\x7f")
        ),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers"),
    ],
)
def test_content_that_cannot_be_sent_is_refused_and_no_value_is_repeated(
    api: Api, fields: Any, blamed: str
) -> None:
    found = api.faults(seconds=1, **fields)
    assert list(found) == [blamed]
    assert "secret" not in str(found)


# How long it is tried


def test_a_timer_s_own_delays_replace_the_service_s(api: Api) -> None:
    timer = api.set(seconds=1, retry=["30s", "5m"])
    for delay_ms in (30 * SECOND, 5 * MINUTE):
        api.fire(timer, Outcome(status=503))
        assert api.get(timer.id).next_attempt_at == api.clock.now + delay_ms
    (call,) = api.fire(timer, Outcome(status=503))
    assert api.get(timer.id).status is Status.FAILED
    assert call.headers["timer-attempt"] == call.headers["timer-attempts-max"] == "3"
    assert call.headers["timer-last-attempt"] == "true"


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"retry": ["1s"] * 21}, "retry"),
        ({"retry": ["25h"]}, "retry"),
        ({"retry": ["soon"]}, "retry"),
        ({"retry": "1s"}, "retry"),
        ({"retry": ["1s"], "max_attempts": 3}, "max_attempts"),
        ({"max_lateness": "soon"}, "max_lateness"),
        ({"repeatable": "yes"}, "repeatable"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(api: Api, fields: Any, blamed: str) -> None:
    assert list(api.faults(seconds=1, **fields)) == [blamed]


def test_no_retries_and_the_most_retries_are_allowed(api: Api) -> None:
    assert api.set(seconds=1, retry=[], max_attempts=1).options.retry_delays_ms == ()
    assert api.set(seconds=1, retry=["24h"] * 20, max_attempts=21).options.max_attempts is None


def test_a_first_call_that_would_be_too_late_is_not_made(api: Api) -> None:
    alert = "https://receiver.example/failed"
    timer = api.set(seconds=1, max_lateness="10m", on_failure_url=alert)
    calls = api.fire(timer, Outcome(status=204), late_ms=10 * MINUTE + 1)
    assert [call.url for call in calls] == [f"{alert}/{timer.id}"]
    assert api.get(timer.id).status is Status.EXPIRED
    (item,) = api.send("GET", "/timers?status=expired").json_body
    assert (item["id"], item["status"], item["time_left"]) == (timer.id, "expired", 0)
    assert api.send("GET", "/timers?status=failed").json_body == []
    assert api.send("DELETE", f"/timers/{timer.id}").status_code == 409
    assert api.send("POST", "/timers/replay", {}).json_body["matching"] == 1
    assert api.send("POST", f"/timers/{timer.id}/replay").status_code == 202
    assert len(api.fire(timer, Outcome(status=204))) == 1
    assert api.get(timer.id).status is Status.FIRED


def test_a_call_within_its_lateness_is_made_and_so_are_all_retries(api: Api) -> None:
    timer = api.set(seconds=1, max_lateness="10m")
    assert len(api.fire(timer, Outcome(status=503), late_ms=10 * MINUTE)) == 1
    assert len(api.fire(timer, Outcome(status=204), late_ms=HOUR)) == 1


def test_a_receiver_may_ask_to_be_called_again(api: Api) -> None:
    timer = api.set(seconds=1, repeatable=True)
    (first,) = api.fire(timer, Outcome(status=204, again="3600"))
    repeated = api.get(timer.id)
    assert repeated.due_at == repeated.next_attempt_at == api.clock.now + HOUR
    assert (repeated.status, repeated.attempts, repeated.repeats) == (Status.PENDING, 0, 1)
    assert api.send("GET", f"/timers/{timer.id}").json_body["time_left"] == 3_600
    api.fire(timer, Outcome(status=503))
    (third,) = api.fire(timer, Outcome(status=204, again=http_date(api.clock.now + DAY)))
    assert third.headers["webhook-id"] == first.headers["webhook-id"] + ".1"
    (last,) = api.fire(timer, Outcome(status=204))
    assert last.headers["webhook-id"] == first.headers["webhook-id"] + ".2"
    assert api.get(timer.id).status is Status.FIRED


@pytest.mark.parametrize("again", ["0", "soon", "315360001", "", "-1"])
def test_a_wish_that_cannot_be_met_is_ignored(api: Api, again: str) -> None:
    timer = api.set(seconds=1, repeatable=True)
    api.fire(timer, Outcome(status=204, again=again))
    assert api.get(timer.id).status is Status.FIRED


def test_without_the_flag_nobody_is_called_again(api: Api) -> None:
    timer = api.set(seconds=1)
    api.fire(timer, Outcome(status=204, again="60"))
    assert api.get(timer.id).status is Status.FIRED


def test_the_log_has_the_latest_failed_response_only(api: Api) -> None:
    timer = api.set(seconds=1)
    api.fire(timer, Outcome(status=503, response="busy"))
    api.fire(timer, Outcome(status=500, response="broken"))
    log = api.send("GET", f"/timers/{timer.id}/attempts").json_body
    assert [record.get("response") for record in log] == [None, "broken"]
