"""Turns: which tenant's timers are looked at next, and when."""

from __future__ import annotations

import math

from chalicelib.embedded.turns import Turns

NOW_MS = 1_800_000_000_000
HOOKS, OTHER = "hooks.example:443", "other.example:443"


class Clocks:
    """A wall clock and a monotonic clock, which the test moves."""

    def __init__(self) -> None:
        self.wall_ms = float(NOW_MS)
        self.monotonic_s = 50.0
        self.turns = Turns(lambda: self.wall_ms, lambda: self.monotonic_s)

    def advance(self, ms: float) -> None:
        self.wall_ms += ms
        self.monotonic_s += ms / 1000


def test_a_tenant_is_ready_when_its_next_timer_is_due() -> None:
    clocks = Clocks()
    clocks.turns.note("ann", NOW_MS + 10)
    assert not clocks.turns.advance()
    assert clocks.turns.next_at() == NOW_MS + 10

    clocks.advance(10)

    assert clocks.turns.advance()
    assert clocks.turns.take(10) == ["ann"]


def test_an_earlier_timer_comes_before_a_later_one() -> None:
    clocks = Clocks()
    clocks.turns.note("ann", NOW_MS + 60_000)
    clocks.turns.note("ann", NOW_MS + 10)
    clocks.turns.note("ann", NOW_MS + 30_000)

    assert clocks.turns.next_at() == NOW_MS + 10


def test_tenants_are_served_in_the_order_in_which_they_became_ready() -> None:
    clocks = Clocks()
    for tenant, at in (("ann", 3), ("bob", 1), ("cleo", 2)):
        clocks.turns.note(tenant, NOW_MS - 10 + at)
    clocks.turns.advance()

    assert clocks.turns.take(2) == ["bob", "cleo"]
    clocks.turns.make_ready("bob")
    assert clocks.turns.take(9) == ["ann", "bob"]


def test_nothing_is_ready_and_nothing_will_be() -> None:
    clocks = Clocks()

    assert not clocks.turns.advance()
    assert clocks.turns.next_at() == math.inf


def test_a_blocked_tenant_is_ready_when_any_call_ends() -> None:
    clocks = Clocks()
    clocks.turns.block("ann", 0)
    assert clocks.turns.next_at() == math.inf

    assert clocks.turns.call_ended(HOOKS)
    assert clocks.turns.take(9) == ["ann"]


def test_a_tenant_over_its_rate_is_ready_after_its_wait() -> None:
    clocks = Clocks()
    clocks.turns.block("ann", 0.25)
    assert clocks.turns.next_at() == NOW_MS + 250

    clocks.advance(250)

    assert clocks.turns.advance()


def test_a_wait_is_not_longer_because_the_wall_clock_was_put_back() -> None:
    clocks = Clocks()
    clocks.turns.block("ann", 0.25)

    clocks.wall_ms -= 3_600_000
    clocks.monotonic_s += 0.25

    assert clocks.turns.next_at() == clocks.wall_ms
    assert clocks.turns.advance()


def test_held_timers_may_be_taken_when_a_call_to_their_receiver_ends() -> None:
    clocks = Clocks()
    clocks.turns.hold("ann", HOOKS, 0)
    assert clocks.turns.released("ann") == []

    assert not clocks.turns.call_ended(OTHER)
    assert clocks.turns.call_ended(HOOKS)

    assert clocks.turns.take(9) == ["ann"]
    assert clocks.turns.released("ann") == [HOOKS]


def test_held_timers_may_be_taken_when_the_rate_of_their_receiver_allows() -> None:
    clocks = Clocks()
    clocks.turns.hold("ann", HOOKS, 2)
    assert clocks.turns.next_at() == NOW_MS + 2_000

    clocks.advance(2_000)

    assert clocks.turns.advance()
    assert clocks.turns.released("ann") == [HOOKS]


def test_all_tenants_that_hold_timers_for_a_receiver_get_their_turn() -> None:
    clocks = Clocks()
    clocks.turns.hold("ann", HOOKS, 0)
    clocks.turns.hold("bob", HOOKS, 0)

    clocks.turns.call_ended(HOOKS)

    assert clocks.turns.take(9) == ["ann", "bob"]


def test_a_receiver_is_held_until_its_last_held_timer_is_taken() -> None:
    clocks = Clocks()
    clocks.turns.hold("ann", HOOKS, 0)
    clocks.turns.call_ended(HOOKS)

    clocks.turns.await_release("ann", HOOKS)
    assert clocks.turns.is_held("ann", HOOKS)
    assert clocks.turns.released("ann") == []
    clocks.turns.forget_held("ann", HOOKS)

    assert not clocks.turns.is_held("ann", HOOKS)
    assert not clocks.turns.is_held("bob", HOOKS)
