"""The optional fields of a timer: as plain values, and back without a loss."""

from __future__ import annotations

from dataclasses import fields

import pytest

from chalicelib.domain.content import Content
from chalicelib.domain.optional_fields import NAMES, SIZED, optional_fields, read_optional_fields
from chalicelib.domain.quota import Quota, size_of
from chalicelib.domain.timer import DeliveryOptions, Idempotency, NewTimer, Timer
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.store import SQLiteTimerStore

FULL = NewTimer(
    tenant="default",
    url="https://receiver.example/ä",
    created_at=1,
    due_at=2,
    options=DeliveryOptions(
        max_attempts=3,
        timeout_s=5,
        on_failure_url="https://receiver.example/failed",
        retry_delays_ms=(0, 30_000),
        max_lateness_ms=60_000,
        repeatable=True,
    ),
    content=Content(
        method="PUT",
        headers=(("X-A", "ä"), ("X-B", "")),
        body=b"\x00\xff body",
        content_type="application/octet-stream",
        append_id=False,
    ),
    labels=("order:7", "b"),
    key="order-7",
    no_later_than=99,
    idempotency=Idempotency(key="once", digest=b"\x01\xfe"),
)
PLAIN = NewTimer(tenant="default", url="https://receiver.example/", created_at=1, due_at=2)


def test_a_plain_timer_has_none() -> None:
    assert optional_fields(PLAIN) == {}
    assert read_optional_fields({"log": "[]"}) == {}


def test_every_field_has_a_name_and_is_read_back() -> None:
    given = optional_fields(FULL)
    assert set(given) == set(NAMES)
    read = read_optional_fields(given)
    assert read == {name: getattr(FULL, name) for name in read}
    plain = {field.name for field in fields(NewTimer)} - set(read)
    assert plain == {"tenant", "url", "created_at", "due_at"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "request_digest"])
def test_a_field_alone_is_read_back(name: str) -> None:
    given = {name: optional_fields(FULL)[name]}
    if name == "idempotency_key":
        given["request_digest"] = optional_fields(FULL)["request_digest"]
    timer = NewTimer(
        tenant="t", url="https://a.example/", created_at=1, due_at=2, **read_optional_fields(given)
    )
    assert optional_fields(timer) == given


@pytest.mark.parametrize("new", [PLAIN, FULL])
def test_the_local_socket_and_the_store_lose_nothing(new: NewTimer) -> None:
    _, arguments = messages.read_request(messages.request("create", messages.from_new_timer(new)))
    store = SQLiteTimerStore.in_memory()
    created = store.create(messages.read_new_timer(arguments))
    assert created == Timer.first(new, 1)
    assert store.get("default", 1) == created
    assert messages.read_timer(messages.read_response(messages.result(created))) == created


def test_the_quota_counts_the_bytes_of_every_sized_field() -> None:
    sized = optional_fields(FULL)
    expected = len(FULL.url.encode()) + sum(
        len(value if isinstance(value, bytes) else str(value).encode())
        for value in (sized[name] for name in SIZED)
    )
    assert size_of(FULL) == expected
    store = SQLiteTimerStore.in_memory(quota=Quota())
    store.create(FULL)
    assert store.stored("default").bytes == expected
    store.purge("default", before=None, limit=1)
    assert store.stored("default").bytes == 0


def test_labels_are_indexed_as_long_as_the_timer_exists() -> None:
    store = SQLiteTimerStore.in_memory()
    store.create(FULL)
    labelled = store._connection.execute("SELECT tenant, label, id FROM labels").fetchall()
    assert labelled == [("default", "b", 1), ("default", "order:7", 1)]
    store.purge("default", before=None, limit=1)
    assert store._connection.execute("SELECT count(*) FROM labels").fetchone() == (0,)
