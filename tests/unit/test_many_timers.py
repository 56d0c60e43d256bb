"""Requests about many timers that the tenant's rate ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chalicelib.domain.errors import RateLimited
from chalicelib.domain.moment import When
from chalicelib.domain.rate import Rate
from chalicelib.domain.selection import Selection
from chalicelib.domain.timer import Status
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.bulk import Bulk
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.many_timers import Chosen, Done
from chalicelib.service.timers import TimerRequest, Timers
from tests.support.clock import ManualClock
from tests.support.factories import claimed, settlement_of

TENANT = "default"
PER_S = 10
COUNT = 25

Request = Callable[[Chosen], Done]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> SQLiteTimerStore:
    return SQLiteTimerStore.in_memory(Rate(PER_S))


@pytest.fixture
def timers(store: SQLiteTimerStore, clock: ManualClock) -> Timers:
    """Return the timers, of which there are 25, set at the pace of the rate."""
    timers = Timers(store, clock)
    for _ in range(COUNT):
        timers.set(TENANT, TimerRequest(url="http://h/", when=When(3_600_000)))
        clock.advance(1000 / PER_S)
    clock.advance(10_000)
    return timers


def clock_end(clock: ManualClock) -> int:
    return int(clock.now) + 3_600_000


def requests(store: SQLiteTimerStore, timers: Timers, clock: ManualClock) -> dict[str, Request]:
    bulk, letters = Bulk(store, timers, clock), DeadLetters(store, timers, clock, step=4)
    return {
        "fire": lambda chosen: bulk.fire(TENANT, chosen, dry_run=False),
        "move": lambda chosen: bulk.move(TENANT, chosen, When(7_200_000), dry_run=False),
        "replay": lambda chosen: letters.replay_all(TENANT, chosen, per_s=1_000),
    }


def go_on(request: Request, chosen: Chosen, clock: ManualClock) -> list[Done]:
    """Go on with a request until all is done, as a client does that waits when it gets 429."""
    done: list[Done] = []
    before = chosen.before
    for _ in range(10 * COUNT):
        try:
            done.append(request(Chosen(only=chosen.only, ids=chosen.ids, before=before)))
        except RateLimited as limited:
            clock.advance(limited.retry_after * 1_000)
            continue
        before = done[-1].before
        if before is None:
            return done
    raise AssertionError("the request never ended")


@pytest.mark.parametrize("verb", ["fire", "move", "replay"])
@pytest.mark.parametrize("ids", [None, list(range(1, COUNT + 1))], ids=["all", "ids"])
def test_a_request_goes_on_at_the_rate_until_all_is_done(
    store: SQLiteTimerStore, timers: Timers, clock: ManualClock, verb: str, ids: list[int] | None
) -> None:
    if verb == "replay":
        for timer_id in range(1, COUNT + 1):
            timer = claimed(store, store.get(TENANT, timer_id), now=clock_end(clock))
            assert store.settle(settlement_of(timer, status=Status.FAILED))
    before = {each: store.get(TENANT, each).version for each in range(1, COUNT + 1)}

    done = go_on(requests(store, timers, clock)[verb], Chosen(ids=ids), clock)

    assert [each.changed for each in done] == [PER_S, PER_S, COUNT - 2 * PER_S]
    assert sum(each.matching for each in done) == COUNT
    assert all(store.get(TENANT, each).version == before[each] + 1 for each in before)


@pytest.mark.parametrize("verb", ["fire", "move"])
def test_a_request_that_the_rate_admits_nothing_of_is_refused(
    store: SQLiteTimerStore, timers: Timers, clock: ManualClock, verb: str
) -> None:
    request = requests(store, timers, clock)[verb]
    request(Chosen())
    with pytest.raises(RateLimited):
        request(Chosen())


def test_a_dry_run_and_a_cancel_use_nothing_of_the_rate(
    store: SQLiteTimerStore, timers: Timers, clock: ManualClock
) -> None:
    bulk = Bulk(store, timers, clock)
    for _ in range(3):
        assert bulk.fire(TENANT, Chosen(), dry_run=True) == Done(matching=COUNT, changed=0)
    assert bulk.cancel(TENANT, Chosen(), dry_run=False) == Done(matching=COUNT, changed=COUNT)


def test_only_the_chosen_of_the_named_ids_are_changed(
    store: SQLiteTimerStore, timers: Timers, clock: ManualClock
) -> None:
    chosen = Chosen(ids=[3, 7, 7, 999], only=Selection(url_prefix="http://h/"), before=7)
    done = Bulk(store, timers, clock).fire(TENANT, chosen, dry_run=False)
    assert done == Done(matching=1, changed=1)
