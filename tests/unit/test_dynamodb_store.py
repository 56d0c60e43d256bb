"""The timer store on DynamoDB, beyond the contract: its calls, costs, repeats and faults."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from chalicelib.aws.dynamodb import items, partitions, rows
from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.domain.claim import Claimed
from chalicelib.domain.errors import TimerChanged, TimerNotFound, Unavailable
from chalicelib.domain.selection import EVERYTHING, DuePosition
from chalicelib.domain.timer import Lease, Status, Timer
from chalicelib.service.ports import SweepCutoffs
from infra.resources import table_definition
from tests.support.clock import START, ManualClock
from tests.support.dynamodb import STAGE, TABLE, RecordingClient
from tests.support.factories import (
    DUE,
    LEASE_MS,
    TENANT,
    change_of,
    claim_of,
    claimed,
    new_timer,
    set_timer,
    settled,
    settlement_of,
)
from tests.support.stores import FakeWakingStore, is_armed
from tests.support.write_units import WRITE_UNIT, size, units

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.aws.dynamodb.rows import Row

DAY_S = 86_400
URL_OF_500 = "https://receiver.example/" + "x" * 475


@pytest.fixture
def sleeps() -> list[float]:
    return []


@pytest.fixture
def store(client: RecordingClient, clock: ManualClock, sleeps: list[float]) -> FakeWakingStore:
    return new_store(client, clock, sleeps)


def new_store(
    client: RecordingClient, clock: ManualClock, sleeps: list[float] | None = None, **steps: Any
) -> FakeWakingStore:
    pauses = [] if sleeps is None else sleeps
    return FakeWakingStore(
        DynamoDBTimerStore(
            cast("DynamoDBClient", client),
            TABLE,
            clock,
            retention_days=2,
            sleep=pauses.append,
            **steps,
        )
    )


def row_of(client: RecordingClient, timer: Timer) -> Row:
    key = rows.timer_key(timer.tenant, timer.id)
    return client.client.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"]


def write_row(client: RecordingClient, timer: Timer, **changes: Any) -> None:
    row = {**rows.new_row(timer, armed=True)[0], **changes}
    client.client.put_item(TableName=TABLE, Item=row)


def set_counter(client: RecordingClient, last_id: int) -> None:
    row = {**rows.counter_key(TENANT), "last_id": rows.number(last_id)}
    client.client.put_item(TableName=TABLE, Item=row)


# Writes that are made twice because the response to the first was lost


def test_a_repeated_put_sets_one_timer(store: FakeWakingStore, client: RecordingClient) -> None:
    client.repeat("put_item")

    timer = set_timer(store)

    assert store.get(TENANT, timer.id) == timer
    assert set_timer(store).id == timer.id + 1


def test_a_repeated_put_recognises_a_timer_that_has_fired_since(
    store: FakeWakingStore, client: RecordingClient, clock: ManualClock
) -> None:
    timer = Timer.first(new_timer(), 1)
    client.repeat("put_item", lambda: settled(new_store(client, clock), timer))

    assert set_timer(store) == timer
    assert store.get(TENANT, timer.id).status is Status.FIRED


def test_a_put_never_overwrites_another_timer(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    other = Timer.first(new_timer(url="https://another.example"), 1)
    write_row(client, other)

    with pytest.raises(Unavailable):
        set_timer(store)
    assert store.get(TENANT, 1) == other


def test_a_repeated_claim_holds_the_timer(store: FakeWakingStore, client: RecordingClient) -> None:
    timer = set_timer(store)
    client.repeat("update_item")

    result = store.claim(claim_of(timer.wakeup(), "mine"))

    lease = Lease(token="mine", until=DUE + LEASE_MS)
    assert result == Claimed(replace(timer, lease=lease), lease)


@pytest.mark.parametrize(
    ("status", "retry_at"),
    [(Status.FIRED, None), (Status.FAILED, None), (Status.PENDING, DUE + 5_000)],
)
def test_a_repeated_settle_succeeds(
    store: FakeWakingStore, client: RecordingClient, status: Status, retry_at: int | None
) -> None:
    timer = claimed(store, set_timer(store))
    client.repeat("update_item")

    assert store.settle(settlement_of(timer, status=status, retry_at=retry_at))

    recorded = store.get(TENANT, timer.id)
    assert (recorded.status, recorded.attempts) == (status, 1)
    assert recorded.version == (1 if retry_at is None else 2)


def test_a_token_that_was_replaced_settles_nothing(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = claimed(store, set_timer(store), "first")
    claimed(store, timer, "second", now=DUE + LEASE_MS)
    assert store.settle(settlement_of(timer, "second"))

    assert store.settle(settlement_of(timer, "second"))
    assert not store.settle(settlement_of(timer, "first"))


def test_a_repeated_increment_of_the_counter_leaves_a_gap(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    first = set_timer(store).id
    client.repeat("update_item")

    assert set_timer(store).id > first
    assert len({set_timer(store).id for _ in range(20)}) == 20


def test_a_repeated_delete_finds_the_timer_gone(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = set_timer(store)
    client.repeat("delete_item")

    with pytest.raises(TimerNotFound):
        store.cancel(TENANT, timer.id, START)
    with pytest.raises(TimerNotFound):
        store.get(TENANT, timer.id)


def test_a_store_gets_one_identity_however_many_processes_ask(
    store: FakeWakingStore, client: RecordingClient, clock: ManualClock
) -> None:
    other = new_store(client, clock)
    client.repeat("put_item")

    name = store.identity()

    assert other.identity() == name
    assert client.calls.count("put_item") == 1
    client.calls.clear()
    assert store.identity() == name
    assert client.calls == []


def test_two_processes_that_make_the_identity_at_once_agree(
    store: FakeWakingStore, client: RecordingClient, clock: ManualClock
) -> None:
    other = new_store(client, clock)
    named: list[str] = []

    def overtaken(real: Callable[..., Any], request: Any) -> Any:
        del client.around["put_item"]
        named.append(other.identity())
        return real(**request)

    client.around["put_item"] = overtaken

    assert [store.identity()] == named


# Failures


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "Operation")


CALLS: list[Callable[[FakeWakingStore], object]] = [
    lambda store: store.identity(),
    lambda store: store.check(),
    set_timer,
    lambda store: store.get(TENANT, 1),
    lambda store: store.list(TENANT, before=None, status=None, limit=1),
    lambda store: store.list(TENANT, before=None, status=Status.FAILED, limit=1),
    lambda store: store.cancel(TENANT, 1, START),
    lambda store: store.purge(TENANT, before=None, limit=1),
    lambda store: store.claim(claim_of(Timer.first(new_timer(), 1).wakeup())),
    lambda store: store.settle(settlement_of(Timer.first(new_timer(), 1))),
    lambda store: store.reschedule(change_of(Timer.first(new_timer(), 1))),
]


def broken_store(error: Exception) -> FakeWakingStore:
    class Broken:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            def call(**_request: Any) -> Any:
                raise error

            return call

    return FakeWakingStore(
        DynamoDBTimerStore(cast("DynamoDBClient", Broken()), TABLE, ManualClock())
    )


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "error",
    [
        refused("ProvisionedThroughputExceededException"),
        refused("ThrottlingException"),
        refused("RequestLimitExceeded"),
        refused("InternalServerError"),
        refused("AccessDeniedException"),
        ReadTimeoutError(endpoint_url="https://dynamodb"),
        ConnectTimeoutError(endpoint_url="https://dynamodb"),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
        NoCredentialsError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_temporary_fault_raises_unavailable(
    error: Exception, call: Callable[[FakeWakingStore], object]
) -> None:
    with pytest.raises(Unavailable) as raised:
        call(broken_store(error))
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("call", CALLS)
def test_the_error_for_a_missing_table_names_the_command_that_makes_it(
    dynamodb: DynamoDBClient, call: Callable[[FakeWakingStore], object]
) -> None:
    store = FakeWakingStore(DynamoDBTimerStore(dynamodb, "timers-nowhere", ManualClock()))

    with pytest.raises(Unavailable, match=r"timers-nowhere.*`make infra`"):
        call(store)


def test_an_invalid_request_is_not_reported_as_unavailable() -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        broken_store(refused("ValidationException")).check()


# What it costs


def test_a_delivered_timer_costs_five_write_units_and_no_read(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    set_timer(store)
    set_timer(store)
    client.calls.clear()
    states: list[Row | None] = [None]

    timer = set_timer(store, url=URL_OF_500)
    states.append(row_of(client, timer))
    claimed(store, timer, "t" * 32)
    states.append(row_of(client, timer))
    store.settle(settlement_of(timer, "t" * 32))
    states.append(row_of(client, timer))

    assert client.calls == ["put_item", "update_item", "update_item"]
    assert [units(*pair) for pair in itertools.pairwise(states)] == [2, 1, 2]


def test_ten_attempts_and_their_log_stay_within_one_write_unit(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = set_timer(store, url=URL_OF_500)
    for attempt in range(10):
        now = DUE + attempt * 60_000
        timer = claimed(store, store.get(TENANT, timer.id), now=now)
        last = attempt == 9
        store.settle(
            settlement_of(timer, now=now, status=Status.FAILED)
            if last
            else settlement_of(timer, now=now, retry_at=now + 60_000)
        )

    row = row_of(client, timer)
    assert len(store.get(TENANT, timer.id).log) == 10
    assert size(row) <= WRITE_UNIT


def test_a_retry_costs_three_write_units_and_a_failure_three(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = claimed(store, set_timer(store, url=URL_OF_500))
    before = row_of(client, timer)
    store.settle(settlement_of(timer, retry_at=DUE + 5_000))
    pending = row_of(client, timer)
    claimed(store, store.get(TENANT, timer.id), now=DUE + 5_000)
    leased = row_of(client, timer)
    store.settle(settlement_of(timer, status=Status.FAILED))

    assert units(before, pending) == 3
    assert units(pending, leased) == 1
    assert units(leased, row_of(client, timer)) == 3


def test_a_replay_costs_three_write_units(store: FakeWakingStore, client: RecordingClient) -> None:
    timer = claimed(store, set_timer(store, url=URL_OF_500))
    store.settle(settlement_of(timer, status=Status.FAILED))
    before = row_of(client, timer)
    store.reschedule(change_of(store.get(TENANT, timer.id), at=DUE + 1, now=DUE))

    assert units(before, row_of(client, timer)) == 3


def test_a_row_with_a_url_of_500_characters_costs_one_write_unit_in_every_state(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    assert len(URL_OF_500) == 500
    set_counter(client, 10**12)
    timer = set_timer(store, url=URL_OF_500)
    sizes = [size(row_of(client, timer))]
    claimed(store, timer, "t" * 32)
    sizes.append(size(row_of(client, timer)))
    store.settle(settlement_of(timer, "t" * 32, status=Status.FAILED))
    sizes.append(size(row_of(client, timer)))

    assert max(sizes) <= WRITE_UNIT


def test_a_claim_changes_nothing_that_an_index_carries(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = set_timer(store)
    before = row_of(client, timer)
    claimed(store, timer)
    after = row_of(client, timer)

    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    due, failed = table_definition(STAGE)["GlobalSecondaryIndexes"]
    carried = set(due["Projection"]["NonKeyAttributes"])
    carried |= {part["AttributeName"] for part in (*due["KeySchema"], *failed["KeySchema"])}
    assert changed == {"lease_until", "token"}
    assert changed.isdisjoint(carried)


def test_a_busy_service_writes_the_counter_once_per_block(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    for _ in range(127):
        set_timer(store)

    assert Counter(client.calls) == {"put_item": 127, "update_item": 7}


# Shards and what a row carries


def test_the_shard_says_whether_a_timer_is_armed(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    one = set_timer(store)
    store.armed = False
    other = set_timer(store)

    assert row_of(client, one)["due_shard"]["S"][0] == rows.ARMED
    assert row_of(client, other)["due_shard"]["S"][0] == rows.UNARMED
    assert (is_armed(store.rows, one), is_armed(store.rows, other)) == (True, False)


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_a_settled_timer_keeps_nothing_of_the_due_index(
    store: FakeWakingStore, client: RecordingClient, status: Status
) -> None:
    timer = settled(store, set_timer(store), status)

    assert not {"due_shard", "next_attempt_at", "lease_until"} & row_of(client, timer).keys()


@pytest.mark.parametrize("armed", [True, False])
def test_a_retry_is_armed_independently_of_the_attempt_before(
    store: FakeWakingStore, *, armed: bool
) -> None:
    store.armed = not armed
    timer = claimed(store, set_timer(store))

    store.armed = armed
    store.settle(settlement_of(timer, retry_at=DUE + 5_000))

    assert is_armed(store.rows, timer) is armed


@pytest.mark.parametrize("armed", [True, False])
def test_a_rescheduled_timer_is_armed_independently_of_its_earlier_state(
    store: FakeWakingStore, *, armed: bool
) -> None:
    store.armed = not armed
    timer = set_timer(store)

    store.armed = armed
    moved = store.reschedule(change_of(timer))

    assert is_armed(store.rows, moved) is armed
    assert store.get(TENANT, timer.id) == moved


def test_a_reschedule_repeated_after_a_lost_response_succeeds_once(
    store: FakeWakingStore,
) -> None:
    timer = set_timer(store)
    change = change_of(timer)

    assert store.reschedule(change) == store.reschedule(change)
    with pytest.raises(TimerChanged):
        store.reschedule(replace(change, at=change.at + 1))


def test_timers_spread_evenly_over_the_shards_of_the_due_index() -> None:
    for ids in (range(1, 6_401), range(1, 6_400 * 256, 256)):
        shards = Counter(rows.due_shard(TENANT, timer_id, armed=True) for timer_id in ids)
        assert set(shards) == {f"a{shard}" for shard in range(64)}
        assert max(shards.values()) < 160


def test_the_key_and_the_shard_of_a_timer_never_change() -> None:
    assert rows.timer_key("default", 1_000) == {"pk": {"S": "T#default#3"}, "id": {"N": "1000"}}
    assert rows.due_shard("default", 1_000, armed=True) == "a31"


def test_a_settled_timer_expires_after_its_retention(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = claimed(store, set_timer(store))
    assert "expires_at" not in row_of(client, timer)

    store.settle(settlement_of(timer, now=DUE + 100))

    assert row_of(client, timer)["expires_at"] == rows.number(DUE // 1000 + 2 * DAY_S)


def test_a_timer_made_outstanding_again_does_not_expire(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = settled(store, set_timer(store), Status.FAILED)

    store.reschedule(change_of(timer, at=DUE + 60_000, now=DUE + 200))

    left = {"expires_at", "settled_at", "failed_of", "token"} & row_of(client, timer).keys()
    assert not left


def mark(client: RecordingClient, timer: Timer) -> None:
    """Mark a timer as a sweep does that has sent its wake-up."""
    client.client.update_item(
        TableName=TABLE,
        Key=rows.timer_key(TENANT, timer.id),
        UpdateExpression="SET woken_at = :now",
        ExpressionAttributeValues={":now": rows.number(DUE)},
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda store, timer: store.settle(settlement_of(timer)),
        lambda store, timer: store.settle(settlement_of(timer, retry_at=DUE + 5_000)),
    ],
    ids=["settled", "retried"],
)
def test_the_mark_of_a_sweep_does_not_outlive_its_version(
    store: FakeWakingStore,
    client: RecordingClient,
    change: Callable[[FakeWakingStore, Timer], object],
) -> None:
    timer = claimed(store, set_timer(store))
    mark(client, timer)

    change(store, timer)

    assert "woken_at" not in row_of(client, timer)


def test_the_mark_of_a_sweep_does_not_outlive_a_reschedule(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = set_timer(store)
    mark(client, timer)

    store.reschedule(change_of(timer))

    assert "woken_at" not in row_of(client, timer)


def test_every_row_carries_its_format(store: FakeWakingStore, client: RecordingClient) -> None:
    set_timer(store)
    store.identity()

    found = client.client.scan(TableName=TABLE)["Items"]

    assert [row["f"] for row in found] == [rows.number(1)] * 3


def test_a_row_of_a_newer_format_is_read_as_far_as_it_is_known(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    timer = Timer.first(new_timer(), 1)
    set_counter(client, 1)
    write_row(
        client,
        timer,
        f=rows.number(2),
        status=rows.text("snoozed"),
        snoozed_by={"M": {"X-One": {"S": "1"}}},
    )

    assert store.get(TENANT, 1) == timer
    assert list(store.list(TENANT, before=None, status=None, limit=1).timers) == [timer]
    claimed(store, timer)
    assert row_of(client, timer)["f"] == rows.number(2)


def test_the_table_drops_expired_rows_by_itself(client: RecordingClient) -> None:
    response = client.client.describe_time_to_live(TableName=TABLE)

    description = response["TimeToLiveDescription"]
    assert description["AttributeName"] == "expires_at"
    assert description["TimeToLiveStatus"] == "ENABLED"


# Walking over what is stored


def test_reads_of_timers_are_consistent(store: FakeWakingStore, client: RecordingClient) -> None:
    reads: list[bool] = []

    def note(real: Callable[..., Any], request: Any) -> Any:
        reads.append(request["ConsistentRead"])
        return real(**request)

    set_timer(store)
    client.around = {"query": note, "get_item": note}
    store.get(TENANT, 1)
    store.list(TENANT, before=None, status=None, limit=10)
    store.list(TENANT, before=None, status=Status.PENDING, limit=10)
    store.purge(TENANT, before=None, limit=10)

    assert reads == [True] * 7


def small_pages(real: Callable[..., Any], request: Any) -> Any:
    """Return pages of one row, as DynamoDB does when rows fill a megabyte."""
    return real(**{**request, "Limit": 1})


def test_results_of_several_pages_are_complete(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    shard = rows.due_shard(TENANT, 1, armed=True)
    ids = [each for each in range(1, 256) if rows.due_shard(TENANT, each, armed=True) == shard][:3]
    assert len(ids) == 3
    for timer_id in ids:
        write_row(client, Timer.first(new_timer(due_at=DUE - timer_id), timer_id))
    set_counter(client, max(ids))
    client.around["query"] = small_pages
    highest_first = sorted(ids, reverse=True)

    page = store.list(TENANT, before=None, status=None, limit=3)
    filtered = store.list(TENANT, before=None, status=Status.PENDING, limit=3)
    assert [timer.id for timer in page.timers] == highest_first
    assert [timer.id for timer in filtered.timers] == highest_first
    index = DynamoDBDueIndex(cast("DynamoDBClient", client), TABLE)
    cutoffs = SweepCutoffs(overdue=DUE, upcoming=DUE, woken=DUE)
    pages = list(index.find(int(shard[1:]), cutoffs))
    assert [wakeup.id for page in pages for wakeup in page] == highest_first
    assert max(len(page) for page in pages) == 1


def test_a_page_of_a_list_ends_after_so_many_empty_partitions(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    write_row(client, Timer.first(new_timer(), 1))
    set_counter(client, 256 * partitions.PARTITIONS_PER_STEP)

    first = store.list(TENANT, before=None, status=None, limit=10)
    second = store.list(TENANT, before=first.before, status=None, limit=10)

    assert (list(first.timers), first.before) == ([], 256)
    assert ([timer.id for timer in second.timers], second.before) == ([1], None)
    assert client.calls.count("query") == partitions.PARTITIONS_PER_STEP + 1


def test_a_purge_repeats_unprocessed_deletes_with_growing_pauses(
    store: FakeWakingStore, client: RecordingClient, sleeps: list[float]
) -> None:
    for _ in range(60):
        set_timer(store)

    def ten_at_a_time(real: Callable[..., Any], request: Any) -> Any:
        ((table, requests),) = request["RequestItems"].items()
        taken = min(len(requests), 10)
        real(RequestItems={table: requests[:taken]})
        return {"UnprocessedItems": {table: requests[taken:]} if requests[taken:] else {}}

    client.around["batch_write_item"] = ten_at_a_time

    assert store.purge(TENANT, before=None, limit=100) is None
    assert list(store.list(TENANT, before=None, status=None, limit=100).timers) == []
    assert sleeps == [0.05, 0.1, 0.05, 0.1]


def test_a_purge_of_a_table_that_stays_busy_gives_up(
    store: FakeWakingStore, client: RecordingClient, sleeps: list[float]
) -> None:
    set_timer(store)
    client.around["batch_write_item"] = lambda _real, request: {
        "UnprocessedItems": request["RequestItems"]
    }

    with pytest.raises(Unavailable):
        store.purge(TENANT, before=None, limit=100)
    assert len(sleeps) == items.MAX_BATCH_TRIES - 1


@pytest.fixture
def large_store(
    client: RecordingClient, clock: ManualClock, sleeps: list[float]
) -> FakeWakingStore:
    """Return a store of 20,000 ids, with few timers, in which a purge takes small steps."""
    set_counter(client, 20_000)
    for timer_id in (1, 2, 300, 18_500):
        write_row(client, Timer.first(new_timer(), timer_id))
    return new_store(client, clock, sleeps, partitions_per_step=2, open_ids=1_000)


def purge_steps(store: FakeWakingStore, most: int) -> int | None:
    """Purge from the top for as long as ``most`` steps take; return where that ended."""
    before = store.purge(TENANT, before=None, limit=100)
    for _ in range(most - 1):
        if before is None:
            break
        before = store.purge(TENANT, before=before, limit=100)
    return before


def test_an_interrupted_purge_continues_where_it_stopped(
    large_store: FakeWakingStore, client: RecordingClient
) -> None:
    steps = 30
    reached = purge_steps(large_store, steps)
    assert reached is not None
    client.calls.clear()
    fresh = set_timer(large_store)
    write_row(client, Timer.first(new_timer(), 19_500))

    assert purge_steps(large_store, steps) is None

    assert client.calls.count("query") < 2 * steps
    with pytest.raises(TimerNotFound):
        large_store.get(TENANT, fresh.id)
    assert client.client.scan(TableName=TABLE, Select="COUNT")["Count"] == 1


def test_each_interrupted_purge_gets_further(large_store: FakeWakingStore) -> None:
    ends = []
    while (end := purge_steps(large_store, 12)) is not None:
        ends.append(end)
        assert len(ends) < 10

    assert len(ends) > 1
    assert ends == sorted(set(ends), reverse=True)


def test_a_purge_of_long_ago_is_not_continued(
    large_store: FakeWakingStore, client: RecordingClient, clock: ManualClock
) -> None:
    purge_steps(large_store, 30)
    write_row(client, Timer.first(new_timer(), 15_000))
    clock.advance(partitions.PURGE_MARK_TTL_MS + 1)

    assert purge_steps(large_store, 100) is None

    with pytest.raises(TimerNotFound):
        large_store.get(TENANT, 15_000)


def due_ids(store: FakeWakingStore, limit: int) -> list[int]:
    """Return the ids of the whole list by due time, page after page."""
    found: list[int] = []
    after: DuePosition | None = None
    for _ in range(100):
        page = store.list_due(TENANT, after=after, only=EVERYTHING, limit=limit)
        found += [timer.id for timer in page.timers]
        assert page.after is None or after is None or page.after > after
        after = page.after
        if after is None:
            return found
    raise AssertionError("the list does not end")


def set_in_one_shard(store: FakeWakingStore, count: int, **fields: Any) -> list[int]:
    """Set timers until ``count`` are in one partition of the due index; return their ids.

    The others are cancelled.
    """
    by_shard: dict[str, list[int]] = {}
    while True:
        timer = set_timer(store, **fields)
        partition = rows.due_shard(timer.tenant, timer.id, armed=False)
        twins = by_shard.setdefault(partition, [])
        twins.append(timer.id)
        if len(twins) == count:
            others = [each for ids in by_shard.values() if ids is not twins for each in ids]
            for each in others:
                store.cancel(timer.tenant, each, DUE - 1)
            return twins


def test_more_timers_of_one_moment_than_a_page_are_all_listed(store: FakeWakingStore) -> None:
    twins = set_in_one_shard(store, 4)
    late = set_timer(store, due_at=DUE + 1)
    assert due_ids(store, 1) == due_ids(store, 100) == [*twins, late.id]


def test_timers_of_others_at_one_moment_do_not_end_a_list(store: FakeWakingStore) -> None:
    set_in_one_shard(store, 4, tenant="other")
    late = set_timer(store, due_at=DUE + 1)
    assert due_ids(store, 1) == [late.id]
