"""The write and read units of each kind of timer on AWS, as docs/cost.md publishes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.domain.content import Content
from chalicelib.domain.keyed import SetByKey
from chalicelib.domain.timer import Idempotency, NewTimer, Status, Timer
from tests.support.clock import START, ManualClock
from tests.support.dynamodb import TABLE, RecordingClient
from tests.support.factories import DUE, claimed, new_timer, set_timer, settlement_of
from tests.support.stores import FakeWakingStore
from tests.support.write_units import Units, counted

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DOCUMENT = Path(__file__).parents[2] / "docs" / "cost.md"
BODY = Content(body=b"x" * 10_240, content_type="text/plain")
KEY = "order:1"


@pytest.fixture
def store(client: RecordingClient, clock: ManualClock) -> FakeWakingStore:
    """Return a store whose process has ids for three timers, so their lease is not counted."""
    rows = DynamoDBTimerStore(cast("DynamoDBClient", client), TABLE, clock)
    store = FakeWakingStore(rows)
    for _ in range(4):
        set_timer(store)
    return store


def fire(store: FakeWakingStore, timer: Timer) -> None:
    claimed(store, timer, "t" * 32)
    assert store.settle(settlement_of(timer, "t" * 32, status=Status.FIRED))


def once(new: NewTimer) -> NewTimer:
    return replace(new, idempotency=Idempotency(key="k" * 32, digest=b"d" * 32))


def by_key(store: FakeWakingStore, delay_ms: int) -> Timer:
    new = replace(new_timer(created_at=START, due_at=START + delay_ms), key=KEY)
    return store.set_by_key(SetByKey(new=new)).timer


def plain(store: FakeWakingStore) -> None:
    fire(store, set_timer(store))


def large_body(store: FakeWakingStore) -> None:
    fire(store, store.create(replace(new_timer(), content=BODY)))


def labelled(store: FakeWakingStore) -> None:
    fire(store, store.create(replace(new_timer(), labels=("order:1", "eu"))))


def idempotent(store: FakeWakingStore) -> None:
    new = once(new_timer())
    fire(store, store.get(new.tenant, store.create_once(new).timer_id))


def idempotent_again(store: FakeWakingStore) -> None:
    store.create_once(once(new_timer()))


def keyed(store: FakeWakingStore) -> None:
    fire(store, by_key(store, DUE - START))


def moved_later(store: FakeWakingStore) -> None:
    by_key(store, DUE - START + 60_000)


def moved_earlier(store: FakeWakingStore) -> None:
    by_key(store, DUE - START - 1)


Step = Callable[[FakeWakingStore], object]

KINDS: dict[str, tuple[Step, Step]] = {
    "a timer without options, delivered": (lambda _store: None, plain),
    "the same with a body of 10 KB": (lambda _store: None, large_body),
    "the same with labels": (lambda _store: None, labelled),
    "the same with an `Idempotency-Key`": (lambda _store: None, idempotent),
    "a repeated idempotent request": (
        lambda store: store.create_once(once(new_timer())),
        idempotent_again,
    ),
    "a keyed timer, set and delivered": (lambda _store: None, keyed),
    "its move to a later time": (lambda store: by_key(store, DUE - START), moved_later),
    "its move to an earlier time": (lambda store: by_key(store, DUE - START), moved_earlier),
}


def published(kind: str) -> tuple[int, int]:
    """Return the write and read units of a row of the table in docs/cost.md."""
    row = re.search(
        rf"^\| {re.escape(kind)} \| (\d+) \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE
    )
    assert row, f"docs/cost.md has no row for {kind}"
    return int(row[1]), int(row[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_units_of_each_kind_of_timer_are_those_of_the_document(
    store: FakeWakingStore, client: RecordingClient, kind: str
) -> None:
    before, measured = KINDS[kind]
    before(store)
    with counted(client) as found:
        measured(store)
    assert _known(found, kind) == published(kind), found.calls


def _known(found: Units, kind: str) -> tuple[int, int]:
    # The test reads the row of the idempotent timer to fire it; the service does not.
    reads = found.reads - 1 if "with an `Idempotency-Key`" in kind else found.reads
    return found.writes, reads


def test_only_the_first_write_pays_for_a_large_body(
    store: FakeWakingStore, client: RecordingClient
) -> None:
    with counted(client) as created:
        timer = store.create(replace(new_timer(), content=BODY))
    with counted(client) as fired:
        fire(store, timer)
    assert (created.writes, fired.writes) == (11 + 2, 3)
    assert fired.calls == ["update_item", "get_item", "update_item"], "read once"
