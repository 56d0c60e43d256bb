"""The budget of calls: how many may be in flight, and how many may start in a second."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from chalicelib.embedded.egress import FAILURES_TO_SLOW_DOWN, MAX_REMEMBERED, Egress, EgressLimits

ANN, BOB = "ann", "bob"
HOOKS, OTHER = "hooks.example:443", "other.example:443"


class Budget(Egress):
    """A budget whose clock, in seconds, the test moves."""

    def __init__(self, **limits: Any) -> None:
        self.now = 1_000.0
        wanted: dict[str, Any] = {"max_in_flight": 1_000} | limits
        super().__init__(EgressLimits(**wanted), lambda: self.now)

    def start_many(self, count: int, tenant: str = ANN, receiver: str = HOOKS) -> None:
        for _ in range(count):
            self.start(tenant, receiver)

    def call(self, *, failed: bool | None, receiver: str = HOOKS) -> None:
        self.start(ANN, receiver)
        self.end(ANN, receiver, failed=failed)


def test_without_limits_a_tenant_has_all_places() -> None:
    budget = Budget()

    budget.start_many(400)

    assert budget.free == budget.tenant_room(ANN) == 600


def test_a_tenant_leaves_room_for_others() -> None:
    budget = Budget(tenant_share=0.5)

    budget.start_many(500)

    assert budget.tenant_room(ANN) == 0
    assert budget.tenant_room(BOB) == 250


def test_a_receiver_leaves_room_for_the_other_receivers_of_its_tenant() -> None:
    budget = Budget(tenant_share=0.5)

    budget.start_many(250)

    assert budget.receiver_room(ANN, HOOKS) == 0
    assert budget.receiver_room(ANN, OTHER) == 125


def test_the_share_of_a_receiver_is_its_tenants() -> None:
    budget = Budget(tenant_share=0.5)

    budget.start_many(250)

    assert budget.receiver_room(BOB, HOOKS) == 188


def test_connections_to_a_receiver_are_limited_over_all_tenants() -> None:
    budget = Budget(receiver_connections=10)

    budget.start_many(7, tenant=ANN)

    assert budget.receiver_room(BOB, HOOKS) == 3
    assert budget.receiver_room(BOB, OTHER) == 10


def test_a_call_that_ends_gives_its_place_back() -> None:
    budget = Budget(receiver_connections=1)
    budget.start(ANN, HOOKS)

    budget.end(ANN, HOOKS, failed=False)

    assert budget.receiver_room(ANN, HOOKS) == 1
    assert budget.free == 1_000


def test_a_tenant_has_the_calls_of_one_second_at_once_and_then_its_rate() -> None:
    budget = Budget(tenant_per_s=20)
    assert budget.tenant_room(ANN) == 20

    budget.start_many(20)

    assert budget.tenant_room(ANN) == 0
    assert budget.tenant_wait_s(ANN) == pytest.approx(0.05)
    assert budget.tenant_room(BOB) == 20
    budget.now += 0.5
    assert budget.tenant_room(ANN) == 10


def test_a_rate_below_one_a_second_lets_single_calls_pass() -> None:
    budget = Budget(receiver_per_s=0.1)
    assert budget.receiver_room(ANN, HOOKS) == 1

    budget.start(ANN, HOOKS)

    assert budget.receiver_room(ANN, HOOKS) == 0
    assert budget.receiver_wait_s(HOOKS) == pytest.approx(10)
    budget.now += 10
    assert budget.receiver_room(ANN, HOOKS) == 1


def test_the_rate_of_a_receiver_counts_the_calls_of_all_tenants() -> None:
    budget = Budget(receiver_per_s=10)

    budget.start_many(6, tenant=ANN)

    assert budget.receiver_room(BOB, HOOKS) == 4


def test_a_receiver_that_only_fails_is_slowed_down(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(failing_receiver_per_s=2)

    for _ in range(FAILURES_TO_SLOW_DOWN):
        budget.call(failed=True)

    assert budget.receiver_room(ANN, HOOKS) == budget.receiver_room(BOB, HOOKS) == 1
    budget.start(ANN, HOOKS)
    assert budget.receiver_room(ANN, HOOKS) == 0
    assert budget.receiver_wait_s(HOOKS) == pytest.approx(0.5)
    assert budget.receiver_room(ANN, OTHER) > 1
    (record,) = caplog.records
    assert record.message == f"every call to {HOOKS} fails: at most 2 calls a second"


def test_one_success_ends_the_slow_rate(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(failing_receiver_per_s=2)
    for _ in range(FAILURES_TO_SLOW_DOWN):
        budget.call(failed=True)
    caplog.clear()

    budget.call(failed=False)

    assert budget.receiver_room(ANN, HOOKS) > 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_successes_in_between_keep_the_full_rate() -> None:
    budget = Budget(failing_receiver_per_s=2)

    for number in range(10 * FAILURES_TO_SLOW_DOWN):
        budget.call(failed=number % FAILURES_TO_SLOW_DOWN != 0)

    assert budget.receiver_room(ANN, HOOKS) > 1


def test_a_call_that_was_not_made_counts_neither_way() -> None:
    budget = Budget(failing_receiver_per_s=2)
    for _ in range(FAILURES_TO_SLOW_DOWN):
        budget.call(failed=True)

    budget.call(failed=None)

    assert budget.receiver_room(ANN, HOOKS) <= 1


def test_what_is_remembered_of_receivers_is_bounded() -> None:
    budget = Budget(failing_receiver_per_s=2)

    for number in range(MAX_REMEMBERED + 100):
        budget.call(failed=True, receiver=f"{number}.example:443")

    assert len(budget._receivers) <= MAX_REMEMBERED + 1


def test_a_quiet_service_remembers_nothing() -> None:
    budget = Budget(tenant_per_s=10, receiver_per_s=10, failing_receiver_per_s=2)

    budget.call(failed=False)
    budget.now += 2
    budget.call(failed=False)
    budget.now += 2
    budget.call(failed=False)

    assert len(budget._tenants) == len(budget._receivers) == 1
