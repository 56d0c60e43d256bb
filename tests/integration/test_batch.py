"""Many timers in one request: each accepted or refused on its own, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.quota import Quota
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.embedded.store import SQLiteTimerStore
from tests.integration.test_timer_options import URL, Api, api, api_on
from tests.support.clock import ManualClock

__all__ = ["api"]

GOOD = {"delay": "1m", "url": URL}


def batch(api: Api, *timers: Any, key: str | None = None) -> Any:
    headers = {"Content-Type": "application/json", "Host": "localhost"}
    if key is not None:
        headers["Idempotency-Key"] = key
    payload = json.dumps({"timers": timers}).encode()
    return api.client.http.request("POST", "/timers/batch", headers, payload)


def test_each_timer_is_set_or_refused_on_its_own_and_in_order(api: Api) -> None:
    response = batch(api, GOOD, {"delay": "1h90", "url": URL}, 7, GOOD | {"body": "hi"})
    assert response.status_code == 200, response.json_body
    first, wrong, no_object, last = response.json_body["results"]
    assert wrong["error"]["status"] == no_object["error"]["status"] == 422
    assert [fault["field"] for fault in wrong["error"]["errors"]] == ["delay"]
    assert api.store.get(DEFAULT_TENANT, last["id"]).content.body == b"hi"
    listed = {item["id"] for item in api.send("GET", "/timers").json_body}
    assert listed == {first["id"], last["id"]}


def test_a_thousand_timers_are_set_at_once(api: Api) -> None:
    response = batch(api, *[GOOD] * 1_000)
    ids = {result["id"] for result in response.json_body["results"]}
    assert len(ids) == 1_000


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"timers": []}', b'{"timers": 1}', b'{"timers": [1], "more": 1}', b"[]"],
)
def test_what_is_no_batch_is_refused(api: Api, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Host": "localhost"}
    assert api.client.http.request("POST", "/timers/batch", headers, body).status_code == 422


def test_more_than_a_thousand_or_two_megabytes_are_refused(api: Api) -> None:
    assert batch(api, *[GOOD] * 1_001).status_code == 422
    assert batch(api, *[GOOD | {"body": "x" * 60_000}] * 36).status_code == 413


def test_a_thousand_refusals_are_short(api: Api) -> None:
    wrong = {f"unknown-{number}" * 9: 1 for number in range(30)}
    response = batch(api, *[wrong] * 1_000)
    assert len(response.body) < 1_500_000


def test_a_name_given_twice_concerns_its_own_timer_only(api: Api) -> None:
    timer = json.dumps(GOOD)
    twice = timer.replace('"delay": "1m"', '"delay": "1m", "delay": "2m"')
    headers = {"Content-Type": "application/json", "Host": "localhost"}
    body = f'{{"timers": [{timer}, {twice}]}}'.encode()
    results = api.client.http.request("POST", "/timers/batch", headers, body).json_body["results"]
    assert [list(result) for result in results] == [["id"], ["error"]]


def test_a_repeated_batch_sets_nothing_twice(api: Api) -> None:
    first = batch(api, GOOD, {"url": URL}, GOOD, key="once")
    again = batch(api, GOOD, {"url": URL}, GOOD, key="once")
    assert first.json_body == again.json_body
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(api.send("GET", "/timers").json_body) == 2
    assert batch(api, GOOD | {"delay": "2m"}, key="once").status_code == 422


def test_rate_and_quota_count_each_timer() -> None:
    for store, code in (
        (SQLiteTimerStore.in_memory(rate=Rate(2)), "rate-limited"),
        (SQLiteTimerStore.in_memory(quota=Quota(timers=2)), "quota-exceeded"),
    ):
        response = batch(api_on(store, ManualClock()), GOOD, GOOD, GOOD)
        *set_, refused = response.json_body["results"]
        assert all("id" in result for result in set_)
        assert refused["error"]["type"].endswith(code)
        store.close()
