"""The id counter on DynamoDB, beyond the contract: many processes, faults and costs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import pytest

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.counter import Counter
from chalicelib.aws.dynamodb.id_blocks import IdBlocks
from chalicelib.aws.dynamodb.items import Items
from chalicelib.domain.errors import RateLimited
from chalicelib.domain.rate import Rate
from infra.cost import BUSY_ID_WRITES
from tests.support.clock import START, ManualClock
from tests.support.dynamodb import TABLE, RecordingClient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def items(client: RecordingClient) -> Items:
    return Items(cast("DynamoDBClient", client), TABLE)


def lease_all(counter: Counter, count: int) -> int:
    """Lease blocks of ``count`` until the rate is used up; return the number of ids."""
    given = 0
    for _ in range(1_000):
        try:
            counter.reserve("acme", count)
        except RateLimited:
            return given
        given += count
    raise AssertionError("nothing limits the leases")


def test_all_processes_share_one_limit(items: Items) -> None:
    clock, rate = ManualClock(), Rate(100)
    counters = [Counter(items, clock, rate) for _ in range(3)]
    assert sum(lease_all(counter, 10) for counter in counters) == 100
    clock.advance(500)
    assert sum(lease_all(counter, 10) for counter in counters) == 50


@pytest.mark.parametrize("skew_ms", [20, 300, 5_000])
def test_processes_whose_clocks_differ_share_one_limit(items: Items, skew_ms: float) -> None:
    clocks, rate = [ManualClock(), ManualClock(START - skew_ms)], Rate(100)
    counters = [Counter(items, clock, rate) for clock in clocks]
    ids = [
        IdBlocks(counter.reserve, clock, counter.max_block)
        for counter, clock in zip(counters, clocks, strict=True)
    ]
    given = 0
    for number in range(600):  # 300 a second
        with contextlib.suppress(RateLimited):
            ids[number % 2].next("acme")
            given += 1
        for clock in clocks:
            clock.advance(10 / 3)
    # Each process may have the ids of one block in reserve.
    assert 280 <= given <= 300 + 1


@pytest.mark.parametrize("written_by_older_version", [True, False])
def test_a_clock_that_is_behind_gives_nothing_on_a_counter_of_any_version(
    client: RecordingClient, items: Items, *, written_by_older_version: bool
) -> None:
    clock = ManualClock()
    counter = Counter(items, clock, Rate(100))
    assert lease_all(counter, 10) == 100
    if written_by_older_version:
        client.update_item(
            TableName=TABLE, Key=rows.counter_key("acme"), UpdateExpression="REMOVE paid_at"
        )
    for step in (-20, -5_000, 5_020):
        clock.advance(step)
        assert lease_all(counter, 10) == 0
    clock.advance(100)
    assert lease_all(counter, 10) == 10
    clock.advance(-600_000)
    assert lease_all(counter, 10) == 100


def test_ids_are_never_leased_twice(items: Items) -> None:
    clock = ManualClock()
    counter = Counter(items, clock, Rate(100))
    ends = [counter.reserve("acme", 10) for _ in range(10)]
    assert ends == [10 * number for number in range(1, 11)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_tenant_that_uses_up_its_rate_costs_a_fifth_of_a_write_a_timer(
    client: RecordingClient, items: Items, processes: int
) -> None:
    clock = ManualClock()
    counters = [Counter(items, clock, Rate(100)) for _ in range(processes)]
    ids = [IdBlocks(counter.reserve, clock, counter.max_block) for counter in counters]
    timers = 1_000
    for number in range(timers):
        ids[number % processes].next("acme")
        clock.advance(10)

    writes = client.calls.count("update_item")
    assert timers / 10 <= writes <= timers * BUSY_ID_WRITES


@pytest.mark.parametrize(("per_s", "largest"), [(None, 1024), (5, 1), (100, 10), (50_000, 1024)])
def test_a_lease_takes_at_most_a_tenth_of_a_seconds_worth(
    items: Items, per_s: float | None, largest: int
) -> None:
    rate = None if per_s is None else Rate(per_s)
    assert Counter(items, ManualClock(), rate).max_block == largest
