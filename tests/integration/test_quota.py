"""The quota of stored timers and bytes: exact on every way in and out of the SQLite store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from chalicelib.domain.errors import QuotaExceeded, RateLimited
from chalicelib.domain.quota import Quota, Stored, size_of
from chalicelib.domain.rate import Rate
from chalicelib.embedded.database import open_store
from chalicelib.embedded.migrations import MIGRATIONS
from chalicelib.embedded.store import SQLiteTimerStore
from tests.support.clock import START
from tests.support.factories import TENANT, new_timer

NOTICE = "https://receiver.example/failed"
SIZE = size_of(new_timer())


def store_with(quota: Quota) -> SQLiteTimerStore:
    return SQLiteTimerStore.in_memory(quota=quota)


def test_a_timer_more_than_the_quota_is_refused_and_uses_no_id() -> None:
    store = store_with(Quota(timers=2))
    store.create(new_timer())
    store.create(new_timer())
    with pytest.raises(QuotaExceeded, match="At most 2 timers"):
        store.create(new_timer())
    assert store.stored(TENANT) == Stored(timers=2, bytes=2 * SIZE)
    store.cancel(TENANT, 1, START)
    assert store.create(new_timer()).id == 3


def test_the_bytes_of_both_urls_count_in_utf8() -> None:
    url = "https://receiver.example/ä€"
    timer = new_timer(url=url, on_failure_url=NOTICE)
    assert size_of(timer) == len(url) + 1 + 2 + len(NOTICE)
    store = store_with(Quota(bytes=2 * size_of(timer)))
    store.create(timer)
    store.create(timer)
    assert store.stored(TENANT).bytes == 2 * size_of(timer)
    with pytest.raises(QuotaExceeded, match="bytes"):
        store.create(timer)


def test_one_tenant_s_quota_is_not_another_s() -> None:
    store = store_with(Quota(timers=1))
    store.create(new_timer())
    assert store.create(new_timer(tenant="other")).id == 1


def test_a_refused_timer_does_not_use_up_the_rate() -> None:
    store = SQLiteTimerStore.in_memory(Rate(1), Quota(timers=1))
    store.create(new_timer())
    later = new_timer(created_at=START + 1_000)
    for _ in range(5):
        with pytest.raises(QuotaExceeded):
            store.create(later)
    store.purge(TENANT, before=None, limit=10)
    store.create(later)
    store.purge(TENANT, before=None, limit=10)
    with pytest.raises(RateLimited):
        store.create(later)


def test_timers_that_are_purged_or_cleaned_no_longer_count() -> None:
    store = store_with(Quota())
    for _ in range(5):
        store.create(new_timer())
    store.purge(TENANT, before=None, limit=2)
    assert store.stored(TENANT) == Stored(timers=3, bytes=3 * SIZE)
    with store.transaction():
        store._connection.execute("UPDATE timers SET settled_at = 1")
    assert store.clean(2, limit=2) == 2
    assert store.stored(TENANT) == Stored(timers=1, bytes=SIZE)


def test_a_store_from_before_the_quota_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "timers.db")
    with closing(open_store(path, migrations=MIGRATIONS[:3])) as before:
        before.execute("INSERT INTO tenants VALUES ('one', 7)")
        rows = [("one", 1, "x", None), ("one", 7, "ä", "yz"), ("two", 3, "x", None)]
        before.executemany(
            "INSERT INTO timers (tenant, id, url, on_failure_url, status, created_at, due_at, "
            "version, attempts) VALUES (?, ?, ?, ?, 'fired', 0, 0, 1, 1)",
            rows,
        )
    store = SQLiteTimerStore.open(path)
    try:
        assert store.stored("one") == Stored(timers=2, bytes=1 + 2 + 2)
        assert store.stored("two") == Stored(timers=1, bytes=1)
        assert store.stored("three") == Stored()
        assert store.create(new_timer(tenant="one")).id == 8
    finally:
        store.close()
