"""The rate counts each timer that is moved, fired, replayed or moved by its key, on every store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.errors import RateLimited, TimerChanged
from chalicelib.domain.keyed import SetByKey
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import Status, Timer
from tests.contract.stores import Store
from tests.support.clock import START, ManualClock
from tests.support.factories import DUE, change_of, new_timer, set_timer, settled

PER_S = 10
KEY = "order:1"


@pytest.fixture
def rate() -> Rate:
    return Rate(PER_S)


def by_key(now: int) -> SetByKey:
    new = replace(new_timer(created_at=now, due_at=now + 60_000), key=KEY)
    return SetByKey(new=new, bound_ms=None, new_if_in_flight=False)


def as_many_as_may_be(change: Callable[[], object]) -> int:
    for count in range(10 * PER_S):
        try:
            change()
        except RateLimited:
            return count
    raise AssertionError("nothing limits this store")


def moves_of(store: Store, timer: Timer) -> Callable[[], object]:
    seen = [timer]

    def move() -> None:
        seen.append(store.reschedule(change_of(seen[-1], at=DUE + len(seen))))

    return move


def test_a_create_and_each_move_count(store: Store) -> None:
    move = moves_of(store, set_timer(store))
    assert as_many_as_may_be(move) == PER_S - 1


def test_a_replay_counts(store: Store) -> None:
    failed = [settled(store, set_timer(store), Status.FAILED) for _ in range(PER_S)]
    with pytest.raises(RateLimited, match="replayed"):
        store.reschedule(change_of(failed[0]))


def test_a_move_by_key_counts(store: Store, clock: ManualClock) -> None:
    assert as_many_as_may_be(lambda: store.set_by_key(by_key(int(clock.now)))) == PER_S


def test_a_refused_move_changes_nothing_and_may_be_tried_again(
    store: Store, clock: ManualClock
) -> None:
    timer = set_timer(store)
    move = moves_of(store, timer)
    as_many_as_may_be(move)
    moved = store.get(timer.tenant, timer.id)
    clock.advance(1_000)
    later = int(clock.now)
    assert store.reschedule(change_of(moved, now=later)).version == moved.version + 1


def test_retries_of_failed_calls_do_not_count(store: Store) -> None:
    timers = [set_timer(store) for _ in range(PER_S - 1)]
    for timer in timers:
        settled(store, timer)
    assert set_timer(store).id


def test_one_tenant_does_not_use_up_the_moves_of_another(store: Store) -> None:
    as_many_as_may_be(moves_of(store, set_timer(store)))
    other = set_timer(store, tenant="globex")
    assert store.reschedule(change_of(other)).version == other.version + 1


def test_a_change_that_is_refused_for_another_reason_is_told_that_reason(store: Store) -> None:
    timer = set_timer(store)
    store.reschedule(change_of(timer))
    with pytest.raises(TimerChanged):
        store.reschedule(change_of(timer, at=START + 1))
