"""Claims on SQLite in memory: which due timers are claimed next."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from chalicelib.domain.timer import NewTimer, Timer
from chalicelib.embedded.claims import MAX_HELD, Chosen, Claims, Round
from chalicelib.embedded.egress import Egress, EgressLimits
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.turns import Turns
from tests.support.clock import START, ManualClock

ANN, BOB = "ann", "bob"
LEASE_MS = 30_000


class Claiming:
    """A store with its claims, on clocks that the test moves."""

    def __init__(self, **limits: Any) -> None:
        wanted: dict[str, Any] = {"max_in_flight": 1_000} | limits
        self.clock = ManualClock()
        self.store = SQLiteTimerStore.in_memory()
        self.egress = Egress(EgressLimits(**wanted), lambda: self.clock.now / 1000)
        self.turns = Turns(self.clock, lambda: self.clock.now / 1000)
        tokens = map(str, itertools.count())
        self.claims = Claims(
            self.store,
            self.egress,
            self.turns,
            clock=self.clock,
            lease_ms=LEASE_MS,
            token=lambda: next(tokens),
        )

    def set(self, tenant: str, url: str = "http://hooks.example/", *, due_in_ms: int = 0) -> Timer:
        """Set a timer, as the writer and the dispatcher do."""
        now = int(self.clock.now)
        new = NewTimer(tenant=tenant, url=url, created_at=now, due_at=now + due_in_ms)
        timer = self.store.create(new)
        self.turns.note(tenant, timer.due_at)
        return timer

    def set_many(self, count: int, tenant: str, url: str = "http://hooks.example/") -> None:
        for _ in range(count):
            self.set(tenant, url)

    def round(self, limit: int = 100) -> list[Chosen]:
        """Carry out one round that is written."""
        return self.carry_out(limit).chosen

    def carry_out(self, limit: int = 100) -> Round:
        this = self.claims.new_round(limit)
        if self.turns.advance():
            self.claims.carry_out(this)
        return this


def ids(chosen: list[Chosen], tenant: str = ANN) -> list[int]:
    timers = [each.claimed.timer for each in chosen]
    return [timer.id for timer in timers if timer.tenant == tenant]


def tenants(chosen: list[Chosen]) -> Counter[str]:
    return Counter(each.claimed.timer.tenant for each in chosen)


def test_tenants_share_a_round() -> None:
    claiming = Claiming()
    claiming.set_many(500, ANN)
    claiming.set_many(3, BOB)

    chosen = claiming.round(limit=100)

    assert tenants(chosen) == {ANN: 97, BOB: 3}


def test_a_tenant_with_one_timer_waits_for_one_round_at_most() -> None:
    claiming = Claiming()
    claiming.set_many(500, ANN)
    claiming.round()
    claiming.set(BOB)

    assert tenants(claiming.round(limit=2)) == {ANN: 1, BOB: 1}


def test_more_tenants_than_a_round_has_places_are_served_in_turn() -> None:
    claiming = Claiming()
    names = [f"tenant-{number}" for number in range(7)]
    for tenant in names:
        claiming.set_many(2, tenant)

    served = [list(tenants(claiming.round(limit=3))) for _ in range(3)]

    assert served == [names[:3], names[3:6], [names[6], *names[:2]]]


def test_within_a_tenant_the_earliest_timer_comes_first() -> None:
    claiming = Claiming()
    late, early, middle = (claiming.set(ANN, due_in_ms=ms) for ms in (30, 10, 20))
    claiming.clock.advance(30)

    assert ids(claiming.round()) == [early.id, middle.id, late.id]


def test_a_timer_that_is_not_due_is_not_claimed() -> None:
    claiming = Claiming()
    claiming.set(ANN, due_in_ms=10)
    claiming.set(BOB)

    assert tenants(claiming.round()) == {BOB: 1}
    assert claiming.turns.next_at() == START + 10


def test_timers_to_a_receiver_without_room_are_not_in_the_way() -> None:
    claiming = Claiming(receiver_connections=2)
    claiming.set_many(50, ANN, "http://slow.example/")
    quick = claiming.set(ANN, "http://quick.example/")

    chosen = claiming.round()

    assert ids(chosen) == [1, 2, quick.id]
    assert claiming.turns.next_at() > START, "the rest waits for a call to end"


def test_held_timers_are_claimed_in_order_when_their_receiver_has_room() -> None:
    claiming = Claiming(receiver_connections=2)
    claiming.set_many(5, ANN)
    first, second = claiming.round()

    claiming.claims.end(second, failed=False)
    (third,) = claiming.round()
    claiming.set(ANN)
    claiming.claims.end(first, failed=False)
    claiming.claims.end(third, failed=False)

    assert ids([third]) == [3]
    assert ids(claiming.round()) == [4, 5]


def test_a_new_timer_queues_behind_the_held_ones_of_its_receiver() -> None:
    claiming = Claiming(receiver_per_s=1)
    claiming.set_many(3, ANN)
    assert ids(claiming.round()) == [1]
    claiming.set(ANN)
    assert ids(claiming.round()) == []

    order = []
    for _ in range(3):
        claiming.clock.advance(1_000)
        order += ids(claiming.round())

    assert order == [2, 3, 4]


def test_a_backlog_over_a_rate_is_called_at_that_rate() -> None:
    claiming = Claiming(tenant_per_s=10)
    claiming.set_many(50, ANN)
    claiming.set_many(2, BOB)
    assert tenants(claiming.round()) == {ANN: 10, BOB: 2}

    for _ in range(10):
        claiming.clock.advance(100)
        assert tenants(claiming.round()) == {ANN: 1}


def test_a_tenant_at_its_share_goes_on_when_a_call_ends() -> None:
    claiming = Claiming(max_in_flight=20, tenant_share=0.5)
    for number in range(40):
        claiming.set(ANN, f"http://{number}.example/")
    chosen = claiming.round()
    assert len(chosen) == 10
    assert claiming.round() == []

    claiming.claims.end(chosen[0], failed=False)

    assert len(claiming.round()) == 1


def test_a_round_that_was_not_written_is_claimed_again() -> None:
    claiming = Claiming(receiver_connections=3)
    claiming.set_many(2, ANN)
    claiming.store.begin(durable=False)
    lost = claiming.carry_out()
    claiming.store.rollback()

    claiming.claims.undo(lost)

    assert ids(lost.chosen) == ids(claiming.round()) == [1, 2]
    assert claiming.egress.receiver_room(ANN, "hooks.example:80") == 1


def test_held_timers_that_were_taken_in_a_lost_round_are_taken_again() -> None:
    claiming = Claiming(receiver_connections=1)
    claiming.set_many(2, ANN)
    (first,) = claiming.round()
    claiming.claims.end(first, failed=False)
    claiming.store.begin(durable=False)
    lost = claiming.carry_out()
    claiming.store.rollback()

    claiming.claims.undo(lost)

    assert ids(lost.chosen) == ids(claiming.round()) == [2]


def test_timers_that_a_lost_round_held_are_claimed_all_the_same() -> None:
    claiming = Claiming(receiver_connections=1)
    claiming.set_many(3, ANN)
    claiming.store.begin(durable=False)
    lost = claiming.carry_out()
    claiming.store.rollback()
    claiming.claims.undo(lost)

    order = []
    for _ in range(3):
        (chosen,) = claiming.round()
        claiming.claims.end(chosen, failed=False)
        order += ids([chosen])

    assert order == [1, 2, 3]


def test_a_held_timer_is_not_early_after_the_clock_was_put_back() -> None:
    claiming = Claiming(receiver_connections=1)
    claiming.set_many(2, ANN)
    (first,) = claiming.round()

    claiming.clock.advance(-5_000)
    claiming.claims.end(first, failed=False)

    assert claiming.round() == []
    claiming.clock.advance(5_000)
    assert ids(claiming.round()) == [2]


def test_a_held_timer_that_was_cancelled_is_forgotten() -> None:
    claiming = Claiming(receiver_connections=1)
    claiming.set_many(3, ANN)
    (first,) = claiming.round()
    claiming.store.cancel(ANN, 2, int(claiming.clock.now))

    claiming.claims.end(first, failed=False)

    assert ids(claiming.round()) == [3]


def test_one_round_holds_a_bounded_number_of_timers() -> None:
    claiming = Claiming(receiver_connections=1)
    claiming.set_many(3 * MAX_HELD, ANN)
    claiming.set(BOB, "http://quick.example/")

    first = claiming.carry_out()

    assert MAX_HELD <= first.held <= MAX_HELD + 100
    assert tenants(first.chosen) == {ANN: 1, BOB: 1}
    assert claiming.turns.advance(), "the next round goes on"


def test_no_timer_is_held_after_a_restart() -> None:
    claiming = Claiming(receiver_connections=1)
    claiming.set_many(3, ANN)
    claiming.round()

    claiming.store.void_leases()

    assert [timer.wakeup.id for timer in claiming.store.due(ANN, START, 10)] == [1, 2, 3]


def test_the_dispatcher_finds_the_next_due_timer_of_every_tenant() -> None:
    claiming = Claiming()
    claiming.set(BOB, due_in_ms=20)
    claiming.set(ANN, due_in_ms=30)
    claiming.set(ANN, due_in_ms=10)

    assert claiming.store.next_due_by_tenant() == [(ANN, START + 10), (BOB, START + 20)]
    assert claiming.store.next_due_by_tenant(limit=1) == [(ANN, START + 10)]
    assert claiming.store.next_due_by_tenant(after=ANN) == [(BOB, START + 20)]
