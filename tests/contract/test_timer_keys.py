"""The contract of every timer store about idempotency keys and keyed timers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import (
    IdempotencyKeyReused,
    TimerChanged,
    TimerInFlight,
    TimerNotFound,
)
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.keyed import SetByKey
from chalicelib.domain.timer import DeliveryOptions, Idempotency, NewTimer, Status, Timer
from tests.contract.stores import Store
from tests.support.clock import START, ManualClock
from tests.support.factories import (
    DUE,
    LEASE_MS,
    TENANT,
    URL,
    change_of,
    claimed,
    new_timer,
    set_timer,
    settled,
    settlement_of,
)

OTHER = "other#1"
KEY = "order:1"
ONE = Idempotency(key='"8e03978e#40d5"', digest=b"\x01" * 32)
HOUR_MS = 3_600_000


def once(
    *, idempotency: Idempotency = ONE, tenant: str = TENANT, at: int = START, **values: Any
) -> NewTimer:
    """Return an idempotent request that is accepted at ``at``, with a relative delay."""
    new = new_timer(tenant=tenant, created_at=at, due_at=at + DUE - START, **values)
    return replace(new, idempotency=idempotency)


def by_key(
    *,
    at: int = START,
    delay_ms: int = DUE - START,
    bound_ms: int | None = None,
    key: str = KEY,
    if_new: bool = False,
    **values: Any,
) -> SetByKey:
    """Return a request to set the timer of a key, which is accepted at ``at``."""
    new = new_timer(created_at=at, due_at=at + delay_ms, **values)
    bound = None if bound_ms is None else at + bound_ms
    new = replace(new, key=key, no_later_than=bound)
    return SetByKey(new=new, bound_ms=bound_ms, new_if_in_flight=if_new)


def stored(store: Store, tenant: str = TENANT) -> list[Timer]:
    return list(store.list(tenant, before=None, status=None, limit=100).timers)


def outstanding_of(store: Store, key: str = KEY) -> list[int]:
    return [
        timer.id
        for timer in stored(store)
        if timer.key == key and timer.next_attempt_at is not None
    ]


# Idempotent requests


def test_a_repeated_request_gets_the_timer_of_the_first(store: Store) -> None:
    assert store.create_once(once()) == SetOnce(1, replayed=False)
    timer = store.get(TENANT, 1)

    assert store.create_once(once(at=START + 5_000)) == SetOnce(1, replayed=True)

    assert stored(store) == [timer]
    assert timer.idempotency == ONE
    assert store.find_once(TENANT, ONE) == SetOnce(1, replayed=True)


def test_a_key_with_another_request_is_refused(store: Store) -> None:
    store.create_once(once())
    other = replace(ONE, digest=b"\x02" * 32)

    with pytest.raises(IdempotencyKeyReused):
        store.create_once(once(idempotency=other))
    with pytest.raises(IdempotencyKeyReused):
        store.find_once(TENANT, other)

    assert [timer.id for timer in stored(store)] == [1]


def test_other_keys_and_other_tenants_have_timers_of_their_own(store: Store) -> None:
    ids = [
        store.create_once(once(idempotency=replace(ONE, key=key), tenant=tenant))
        for tenant in (TENANT, OTHER)
        for key in ("a", "A", "a#b")
    ]
    assert [(done.timer_id, done.replayed) for done in ids] == [
        (1, False),
        (2, False),
        (3, False),
    ] * 2


def test_a_key_that_was_never_used_finds_nothing(store: Store) -> None:
    assert store.find_once(TENANT, ONE) is None


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_a_key_holds_as_long_as_its_timer_exists(store: Store, status: Status) -> None:
    store.create_once(once())
    settled(store, store.get(TENANT, 1), status)
    assert store.create_once(once(at=DUE + 1)) == SetOnce(1, replayed=True)


@pytest.mark.parametrize("later_ms", [0, HOUR_MS])
@pytest.mark.parametrize("removal", ["cancel", "purge"])
def test_the_key_of_a_timer_that_is_gone_is_free(
    store: Store, clock: ManualClock, removal: str, later_ms: int
) -> None:
    store.create_once(once())
    clock.advance(later_ms)
    now = START + later_ms
    if removal == "cancel":
        store.cancel(TENANT, 1, now)
    else:
        store.purge(TENANT, before=None, limit=10)

    other = once(idempotency=replace(ONE, digest=b"\x02" * 32), at=now)
    assert store.create_once(other) == SetOnce(2, replayed=False)
    assert store.create_once(other) == SetOnce(2, replayed=True)
    assert [timer.id for timer in stored(store)] == [2]


def test_a_repeated_request_finds_a_timer_that_was_moved(store: Store) -> None:
    store.create_once(once())
    moved = store.reschedule(change_of(store.get(TENANT, 1), at=START + 10 * 365 * 24 * HOUR_MS))

    assert store.create_once(once()) == SetOnce(1, replayed=True)
    assert store.get(TENANT, 1) == moved


# Keyed timers


def test_the_first_set_of_a_key_makes_its_timer(store: Store) -> None:
    done = store.set_by_key(by_key(bound_ms=HOUR_MS, max_attempts=3))

    assert done.created
    assert done.timer == Timer(
        tenant=TENANT,
        id=1,
        url=URL,
        created_at=START,
        due_at=DUE,
        next_attempt_at=DUE,
        options=DeliveryOptions(max_attempts=3),
        key=KEY,
        no_later_than=START + HOUR_MS,
    )
    assert store.get_by_key(TENANT, KEY) == store.get(TENANT, 1) == done.timer


@pytest.mark.parametrize("delay_ms", [5_000, HOUR_MS])
def test_another_set_moves_the_timer_and_replaces_what_it_sends(
    store: Store, delay_ms: int
) -> None:
    store.set_by_key(by_key(max_attempts=3, on_failure_url="https://h/failed"))
    second = by_key(at=START + 1_000, delay_ms=delay_ms, url="https://other.example", timeout_s=4)
    done = store.set_by_key(second)

    due_at = START + 1_000 + delay_ms
    assert not done.created
    assert done.timer == Timer(
        tenant=TENANT,
        id=1,
        url="https://other.example",
        created_at=START,
        due_at=due_at,
        next_attempt_at=due_at,
        version=1 if due_at > DUE else 2,
        options=DeliveryOptions(timeout_s=4),
        key=KEY,
    )
    assert store.get_by_key(TENANT, KEY) == store.get(TENANT, 1) == done.timer
    assert [wakeup.at for wakeup in store.due(due_at, 10)] == [due_at]
    assert list(store.due(due_at - 1, 10)) == []


def test_every_key_and_every_tenant_has_a_timer_of_its_own(store: Store) -> None:
    assert store.set_by_key(by_key(key="a")).timer.id == 1
    assert store.set_by_key(by_key(key="A")).timer.id == 2
    assert store.set_by_key(by_key(key="a", tenant=OTHER)).created
    for tenant, key in ((TENANT, "b"), (OTHER, "A")):
        with pytest.raises(TimerNotFound):
            store.get_by_key(tenant, key)


def test_a_timer_without_a_key_is_found_by_none(store: Store) -> None:
    set_timer(store)
    with pytest.raises(TimerNotFound):
        store.get_by_key(TENANT, KEY)


def test_later_sets_never_go_past_the_bound(store: Store) -> None:
    for minute in range(8):
        at = START + minute * 60_000
        timer = store.set_by_key(by_key(at=at, delay_ms=3 * 60_000, bound_ms=5 * 60_000)).timer
        assert timer.due_at == min(at + 3 * 60_000, START + 5 * 60_000)
    assert timer.no_later_than == START + 5 * 60_000
    assert outstanding_of(store) == [1]


def test_a_bound_holds_without_being_sent_again_and_can_only_be_tightened(store: Store) -> None:
    def set_with(bound_ms: int | None) -> int | None:
        return store.set_by_key(by_key(delay_ms=HOUR_MS, bound_ms=bound_ms)).timer.no_later_than

    assert set_with(None) is None
    assert set_with(2 * HOUR_MS) == START + 2 * HOUR_MS + 1  # the set was in this millisecond
    assert set_with(3 * HOUR_MS) == START + 2 * HOUR_MS + 1
    assert set_with(None) == START + 2 * HOUR_MS + 1
    assert set_with(1_000) == START + 1_001
    assert store.get_by_key(TENANT, KEY).due_at == START + 1_001


def test_a_timer_in_flight_is_not_set(store: Store) -> None:
    timer = claimed(store, store.set_by_key(by_key()).timer)
    for at in (DUE + 1, DUE + LEASE_MS + 1):  # its sender may be slow and still be calling
        with pytest.raises(TimerInFlight):
            store.set_by_key(by_key(at=at))
    assert store.get(TENANT, 1) == timer


def test_the_next_timer_takes_the_key_from_the_one_in_flight(store: Store) -> None:
    first = claimed(store, store.set_by_key(by_key()).timer)
    done = store.set_by_key(by_key(at=DUE + 1, if_new=True))

    assert (done.created, done.timer.id, done.timer.key) == (True, 2, KEY)
    assert store.get_by_key(TENANT, KEY) == done.timer
    assert store.get(TENANT, 1) == replace(first, key=None)
    assert store.settle(settlement_of(first, retry_at=DUE + HOUR_MS))
    assert store.set_by_key(by_key(at=DUE + 2, if_new=True)).timer.id == 2
    assert outstanding_of(store) == [2]


def test_a_retry_that_waits_is_moved_and_its_attempts_start_anew(store: Store) -> None:
    timer = claimed(store, store.set_by_key(by_key()).timer)
    assert store.settle(settlement_of(timer, retry_at=DUE + HOUR_MS))
    waiting = store.get(TENANT, 1)

    at = DUE + 1_000
    done = store.set_by_key(by_key(at=at))

    assert not done.created
    assert (done.timer.attempts, done.timer.log) == (0, waiting.log)
    assert done.timer.next_attempt_at == done.timer.due_at == at + DUE - START


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_the_key_of_a_settled_timer_is_free(store: Store, status: Status) -> None:
    first = settled(store, store.set_by_key(by_key()).timer, status)
    assert store.get_by_key(TENANT, KEY) == first

    done = store.set_by_key(by_key(at=DUE + HOUR_MS))

    assert (done.created, done.timer.id) == (True, 2)
    assert store.get_by_key(TENANT, KEY) == done.timer
    assert store.get(TENANT, 1) == first


@pytest.mark.parametrize("later_ms", [0, HOUR_MS])
@pytest.mark.parametrize("removal", ["cancel", "purge"])
def test_the_key_of_a_timer_that_is_removed_is_free(
    store: Store, clock: ManualClock, removal: str, later_ms: int
) -> None:
    store.set_by_key(by_key(delay_ms=2 * HOUR_MS))
    clock.advance(later_ms)
    now = START + later_ms
    if removal == "cancel":
        store.cancel(TENANT, 1, now)
    else:
        store.purge(TENANT, before=None, limit=10)
    with pytest.raises(TimerNotFound):
        store.get_by_key(TENANT, KEY)

    done = store.set_by_key(by_key(at=now))

    assert (done.created, done.timer.id) == (True, 2)
    assert store.get_by_key(TENANT, KEY) == done.timer


def test_a_replayed_timer_has_lost_its_key(store: Store) -> None:
    failed = settled(store, store.set_by_key(by_key()).timer, Status.FAILED)
    store.set_by_key(by_key(at=DUE + 200))

    replayed = store.reschedule(change_of(failed, now=DUE + 300))

    assert replayed.key is None
    assert outstanding_of(store) == [2]


def test_a_timer_of_a_key_is_moved_by_its_id_like_any_other(store: Store) -> None:
    timer = store.set_by_key(by_key()).timer
    moved = store.reschedule(change_of(timer))
    assert (moved.key, moved.version) == (KEY, 2)
    assert store.get_by_key(TENANT, KEY) == moved


def test_a_set_that_has_seen_an_older_timer_does_not_overwrite_it(store: Store) -> None:
    """A move by id, whose version a later move by key does not raise, is not lost unseen."""
    timer = store.set_by_key(by_key()).timer
    store.set_by_key(by_key(delay_ms=HOUR_MS, bound_ms=2 * HOUR_MS))
    with pytest.raises(TimerChanged):
        store.reschedule(change_of(timer))


def test_a_wakeup_from_before_a_later_move_leads_to_the_new_time(store: Store) -> None:
    wakeup = store.set_by_key(by_key()).timer.wakeup()
    moved = store.set_by_key(by_key(delay_ms=HOUR_MS)).timer
    assert moved.version == wakeup.version
    assert claimed(store, moved, now=moved.due_at).id == wakeup.id
