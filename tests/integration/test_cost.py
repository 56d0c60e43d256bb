"""The calls to AWS that a timer costs. Write units are counted in the tests of the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.moment import When
from chalicelib.domain.rate import Rate
from chalicelib.domain.webhook import Outcome
from chalicelib.service.timers import KeyedRequest, TimerRequest
from infra.work import BATCH_CALLS, CREATE, DELIVERY, FAR_TIMER, RETRY
from tests.support.clock import ManualClock
from tests.support.factories import TENANT, URL, change_of
from tests.support.moto_stage import MotoStage
from tests.support.sender import FakeSender


def test_a_delivered_near_timer_costs_put_send_claim_and_settle(
    stage: MotoStage, clock: ManualClock
) -> None:
    api, delivery = stage.timers(), stage.delivery(FakeSender(clock))
    stage.store.identity()
    for _ in range(2):
        api.set(TENANT, TimerRequest(url=URL, when=When(5_000)))  # ids for one more are leased
    stage.calls.clear()

    timer = api.set(TENANT, TimerRequest(url=URL, when=When(5_000)))
    created = stage.operations()
    assert created == ["SendMessage", "PutItem"]
    assert Counter(created) == CREATE.calls
    clock.now = timer.due_at
    delivery.deliver(timer.wakeup())
    assert Counter(stage.operations()) == DELIVERY.calls


def test_many_timers_cost_next_to_nothing_beyond_their_own_calls(
    stage: MotoStage, clock: ManualClock
) -> None:
    api, sender = stage.timers(), FakeSender(clock)
    delivery = stage.delivery(sender)
    timers = [api.set(TENANT, TimerRequest(url=URL, when=When(60_000))) for _ in range(200)]
    clock.now = timers[-1].due_at
    for timer in timers:
        delivery.deliver(timer.wakeup())

    assert len(sender.sent) == 200
    assert Counter(stage.operations()) == {
        "PutItem": 200 + 1,  # and the name of the store, once for ever
        "SendMessage": 200,
        "UpdateItem": 400 + 8,  # and leases of 1, 2, 4 … 128 ids
        "GetItem": 1,  # the name of the store, once a process
    }


def test_a_far_timer_costs_a_schedule_and_one_message(stage: MotoStage, clock: ManualClock) -> None:
    api, delivery = stage.timers(), stage.delivery(FakeSender(clock))
    stage.store.identity()
    stage.calls.clear()
    timer = api.set(TENANT, TimerRequest(url=URL, when=When(3_600_000)))
    (schedule,) = stage.schedules()
    clock.now = timer.due_at - 5 * 60_000
    delivery.deliver(timer.wakeup())  # the schedule comes
    clock.now = timer.due_at
    delivery.deliver(timer.wakeup())  # the message comes

    assert schedule["Target"]
    lease_of_ids = Counter(UpdateItem=1)
    assert Counter(stage.operations()) == Counter(FAR_TIMER.calls) + lease_of_ids


@pytest.mark.parametrize("status", [503, 410])
def test_a_retry_and_a_failure_cost_their_own_calls(
    stage: MotoStage, clock: ManualClock, status: int
) -> None:
    timer = stage.timers().set(TENANT, TimerRequest(url=URL, when=When(5_000)))
    delivery = stage.delivery(FakeSender(clock, Outcome(status=status)))
    stage.store.identity()
    stage.calls.clear()
    clock.now = timer.due_at

    delivery.deliver(timer.wakeup())

    expected = (
        ["UpdateItem", "UpdateItem"]
        if status == 410
        else [
            "UpdateItem",
            "SendMessage",
            "UpdateItem",
        ]
    )
    made = stage.operations()
    assert made == expected
    assert Counter(made) == (RETRY if status == 503 else DELIVERY).calls


@pytest.mark.parametrize("gone", ["settled", "cancelled", "of an old version"])
def test_a_wakeup_that_is_void_costs_one_failed_write_and_no_read(
    stage: MotoStage, clock: ManualClock, gone: str
) -> None:
    api, delivery = stage.timers(), stage.delivery(FakeSender(clock))
    timer = api.set(TENANT, TimerRequest(url=URL, when=When(5_000)))
    wakeup = timer.wakeup()
    stage.store.identity()  # read once a process
    clock.now = timer.due_at
    if gone == "settled":
        delivery.deliver(wakeup)
    elif gone == "cancelled":
        api.cancel(TENANT, timer.id)
    else:
        stage.store.reschedule(change_of(timer, at=int(clock.now), now=int(clock.now)))
    stage.calls.clear()

    delivery.deliver(wakeup)

    assert stage.operations() == ["UpdateItem"]


def test_a_move_at_a_rate_costs_one_call_more_and_many_moves_a_tenth(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.begin_process(Rate(100))
    limited = stage.timers()
    timer = limited.set(TENANT, TimerRequest(url=URL, when=When(60_000)))
    clock.advance(1_000)
    stage.calls.clear()
    limited.move(TENANT, timer.id, When(70_000))
    assert stage.operations() == ["GetItem", "UpdateItem", "SendMessage", "UpdateItem"]
    stage.calls.clear()
    for _ in range(100):
        clock.advance(10)
        limited.move(TENANT, timer.id, When(70_000))
    paid = Counter(stage.operations())["UpdateItem"] - 100
    assert paid <= 2 * (10 + 4), "blocks of 1, 2, 4, 8, then 10, each in at most two writes"


def test_a_batch_of_a_thousand_costs_a_put_each_and_a_tenth_of_a_message(
    stage: MotoStage, clock: ManualClock
) -> None:
    api = stage.timers()
    stage.calls.clear()
    results = api.set_many(TENANT, [TimerRequest(url=URL, when=When(60_000))] * 1_000)

    ids = [done.timer_id for done in results if isinstance(done, SetOnce)]
    assert ids == list(range(1, 1_001))
    # Ids come in blocks of 1, 2, 4 … 512.
    assert Counter(stage.operations()) == BATCH_CALLS
    assert all(stage.is_armed(stage.store.get(TENANT, timer_id)) for timer_id in (1, 500, 1_000))


def test_a_batch_of_far_timers_costs_a_schedule_each(stage: MotoStage) -> None:
    api = stage.timers()
    stage.calls.clear()
    api.set_many(TENANT, [TimerRequest(url=URL, when=When(3_600_000))] * 5)
    assert Counter(stage.operations()) == {"PutItem": 5, "CreateSchedule": 5, "UpdateItem": 3}


@pytest.mark.parametrize(("delay_ms", "calls"), [(90_000, []), (30_000, ["SendMessage"])])
def test_only_a_keyed_move_to_an_earlier_time_costs_a_wakeup(
    stage: MotoStage, delay_ms: int, calls: list[str]
) -> None:
    api = stage.timers()
    request = KeyedRequest(timer=TimerRequest(url=URL, when=When(60_000)))
    api.set_by_key(TENANT, "order:1", request)
    stage.calls.clear()
    moved = replace(request, timer=TimerRequest(url=URL, when=When(delay_ms)))
    api.set_by_key(TENANT, "order:1", moved)
    assert stage.operations() == ["GetItem", "GetItem", *calls, "UpdateItem"]


def test_a_move_without_a_rate_costs_no_counter(stage: MotoStage) -> None:
    api = stage.timers()
    timer = api.set(TENANT, TimerRequest(url=URL, when=When(60_000)))
    stage.calls.clear()
    api.move(TENANT, timer.id, When(70_000))
    assert stage.operations() == ["GetItem", "SendMessage", "UpdateItem"]
