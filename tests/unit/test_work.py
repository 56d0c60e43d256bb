"""The units of DynamoDB in ``infra.work`` are those of the items that the store writes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.domain.timer import Status
from infra import cost
from infra.work import CREATE, DELIVERY, NEAR_TIMER, RETRY
from tests.support.clock import ManualClock
from tests.support.dynamodb import TABLE, RecordingClient
from tests.support.factories import claimed, set_timer, settlement_of
from tests.support.stores import FakeWakingStore
from tests.support.write_units import counted

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TOKEN = "t" * 32


@pytest.fixture
def store(client: RecordingClient, clock: ManualClock) -> FakeWakingStore:
    """Return a store whose process has ids, so their lease is not counted."""
    rows = DynamoDBTimerStore(cast("DynamoDBClient", client), TABLE, clock)
    store = FakeWakingStore(rows)
    for _ in range(4):
        set_timer(store)
    return store


def test_a_timer_pays_for_its_creation_and_its_delivery(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    with counted(client) as created:
        timer = set_timer(store)
    with counted(client) as fired:
        claimed(store, timer, TOKEN)
        assert store.settle(settlement_of(timer, TOKEN, status=Status.FIRED))
    assert (created.writes, created.reads) == (CREATE.writes, CREATE.reads)
    assert (fired.writes, fired.reads) == (DELIVERY.writes, DELIVERY.reads)
    assert NEAR_TIMER.writes == 5
    assert len(fired.calls) == DELIVERY.table_writes, "one unit of the table for each write"


def test_an_attempt_that_is_tried_again_moves_its_entry_in_the_index(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = set_timer(store)
    with counted(client) as found:
        claimed(store, timer, TOKEN)
        again = replace(
            settlement_of(timer, TOKEN, status=Status.PENDING),
            next_attempt_at=timer.due_at + 60_000,
        )
        assert store.settle(again)
    assert (found.writes, found.reads) == (RETRY.writes, RETRY.reads)


def test_the_page_of_costs_is_up_to_date_and_a_stale_table_is_replaced() -> None:
    page = cost.PAGE.read_text(encoding="utf-8")
    assert cost.updated(page) == page, "run: python -m infra.cost --write"
    assert "$14.31" in page
    assert cost.updated(page.replace("$14.31", "$99.99")) == page


def test_the_costs_as_json_are_those_of_the_page() -> None:
    found = cost.document()
    assert found["per_million_timers"]["near, one by one"]["in all"] == 14.31
    assert found["per_month_without_timers"]["in all"] > 0
