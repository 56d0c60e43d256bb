"""The lists on one machine: what they read of a large store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import Status
from chalicelib.embedded.store import LIST_WINDOW, SQLiteTimerStore
from tests.support.factories import DUE, TENANT, set_timer


@pytest.fixture
def store() -> Iterator[SQLiteTimerStore]:
    store = SQLiteTimerStore.in_memory()
    yield store
    store.close()


def fill(store: SQLiteTimerStore, count: int) -> None:
    """Store ``count`` outstanding timers, one due each millisecond after ``DUE``."""
    store._connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO timers (tenant, id, url, status, created_at, due_at, version, attempts, "
        "next_attempt_at) SELECT ?, 1000 + i, 'http://h', 'pending', 0, ? + i, 1, 0, ? + i FROM n",
        (count, TENANT, DUE, DUE),
    )


def plans_of(store: SQLiteTimerStore, read: Callable[[], object]) -> list[str]:
    """Return the query plan of each SELECT of ``read``."""
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    read()
    store._connection.set_trace_callback(None)
    return [
        "; ".join(step[3] for step in store._connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        for statement in statements
        if statement.startswith("SELECT")
    ]


@pytest.mark.parametrize(
    "only",
    [EVERYTHING, Selection(url_prefix="x"), Selection(due_until=DUE), Selection(label="a")],
)
def test_a_page_reads_indexes_and_the_rows_that_they_name(
    store: SQLiteTimerStore, only: Selection
) -> None:
    after = DuePosition(DUE, 5)
    due, held, rows = plans_of(
        store, lambda: store.list_due(TENANT, after=after, only=only, limit=10)
    )
    assert "USING INDEX due (tenant=? AND <expr>" in due
    assert "USING COVERING INDEX held (tenant=?" in held
    assert "USING PRIMARY KEY (tenant=? AND id=?)" in rows


def test_a_held_timer_is_listed_in_its_place(store: SQLiteTimerStore) -> None:
    first, held, last = (set_timer(store, due_at=DUE + at) for at in (0, 1, 2))
    store.hold(held.wakeup(), "receiver")
    page = store.list_due(TENANT, after=None, only=EVERYTHING, limit=10)
    assert [timer.id for timer in page.timers] == [first.id, held.id, last.id]
    assert page.after is None


def test_a_page_of_rare_timers_ends_early_and_goes_on(store: SQLiteTimerStore) -> None:
    fill(store, LIST_WINDOW + 1)
    rare = set_timer(store, url="http://rare", due_at=DUE + LIST_WINDOW + 10)
    only = Selection(url_prefix="http://rare")
    page = store.list_due(TENANT, after=None, only=only, limit=10)
    assert (page.timers, page.after) == ([], DuePosition(DUE + LIST_WINDOW, 1000 + LIST_WINDOW))
    page = store.list_due(TENANT, after=page.after, only=only, limit=10)
    assert ([timer.id for timer in page.timers], page.after) == ([rare.id], None)


@pytest.mark.parametrize(
    ("status", "only", "read"),
    [
        (None, EVERYTHING, ["timers USING PRIMARY KEY (tenant=? AND id>? AND id<?)"]),
        (Status.FAILED, EVERYTHING, ["timers USING INDEX failed (tenant=? AND id>? AND id<?)"]),
        (
            Status.EXPIRED,
            Selection(url_prefix="x"),
            ["timers USING INDEX expired (tenant=? AND id>? AND id<?)"],
        ),
        (
            Status.PENDING,
            Selection(label="a"),
            [
                "labels USING PRIMARY KEY (tenant=? AND label=? AND id>? AND id<?)",
                "timers USING PRIMARY KEY (tenant=? AND id=?)",
            ],
        ),
        (
            Status.FAILED,
            Selection(label="a"),
            [
                "timers USING INDEX failed (tenant=? AND id>? AND id<?)",
                "labels USING PRIMARY KEY (tenant=? AND label=? AND id=?)",
            ],
        ),
    ],
)
def test_a_list_reads_the_index_of_what_it_looks_for(
    store: SQLiteTimerStore, status: Status | None, only: Selection, read: list[str]
) -> None:
    plans = plans_of(
        store, lambda: store.list(TENANT, before=None, status=status, limit=10, only=only)
    )
    assert plans[-1] == "; ".join(f"SEARCH {step}" for step in read)
