"""What a timer costs on AWS: every call is counted. Write units are counted with the store."""

from __future__ import annotations

from collections import Counter

import pytest

from chalicelib.domain.webhook import Outcome
from chalicelib.service.timers import TimerRequest
from tests.support.clock import HandClock
from tests.support.cloud import Cloud, HandSender
from tests.support.factories import TENANT, URL, change_of


def test_a_delivered_near_timer_costs_put_send_claim_and_settle(
    cloud: Cloud, clock: HandClock
) -> None:
    api, delivery = cloud.timers(), cloud.delivery(HandSender(clock))
    cloud.store.identity()
    for _ in range(2):
        api.set(TENANT, TimerRequest(url=URL, delay_ms=5_000))  # ids for one more are leased
    cloud.calls.clear()

    timer = api.set(TENANT, TimerRequest(url=URL, delay_ms=5_000))
    assert cloud.operations() == ["SendMessage", "PutItem"]
    clock.now = timer.due_at
    delivery.deliver(timer.wakeup())
    assert cloud.operations() == ["UpdateItem", "UpdateItem"]


def test_what_many_timers_cost_beside_themselves_is_next_to_nothing(
    cloud: Cloud, clock: HandClock
) -> None:
    api, sender = cloud.timers(), HandSender(clock)
    delivery = cloud.delivery(sender)
    timers = [api.set(TENANT, TimerRequest(url=URL, delay_ms=60_000)) for _ in range(200)]
    clock.now = timers[-1].due_at
    for timer in timers:
        delivery.deliver(timer.wakeup())

    assert len(sender.sent) == 200
    assert Counter(cloud.operations()) == {
        "PutItem": 200 + 1,  # and the name of the store, once for ever
        "SendMessage": 200,
        "UpdateItem": 400 + 8,  # and leases of 1, 2, 4 … 128 ids
        "GetItem": 1,  # the name of the store, once a process
    }


def test_a_far_timer_costs_a_schedule_and_one_message(cloud: Cloud, clock: HandClock) -> None:
    api, delivery = cloud.timers(), cloud.delivery(HandSender(clock))
    cloud.store.identity()
    cloud.calls.clear()
    timer = api.set(TENANT, TimerRequest(url=URL, delay_ms=3_600_000))
    (schedule,) = cloud.schedules()
    clock.now = timer.due_at - 5 * 60_000
    delivery.deliver(timer.wakeup())  # the schedule comes
    clock.now = timer.due_at
    delivery.deliver(timer.wakeup())  # the message comes

    assert schedule["Target"]
    assert Counter(cloud.operations()) == {
        "CreateSchedule": 1,
        "SendMessage": 1,
        "PutItem": 1,
        "UpdateItem": 2 + 1,  # claim, settle; the lease of ids
    }


@pytest.mark.parametrize("status", [503, 410])
def test_another_attempt_and_a_failure_cost_calls_of_their_own_kind(
    cloud: Cloud, clock: HandClock, status: int
) -> None:
    timer = cloud.timers().set(TENANT, TimerRequest(url=URL, delay_ms=5_000))
    delivery = cloud.delivery(HandSender(clock, Outcome(status=status)))
    cloud.store.identity()
    cloud.calls.clear()
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
    assert cloud.operations() == expected


@pytest.mark.parametrize("gone", ["settled", "cancelled", "of an old version"])
def test_a_wakeup_that_is_void_costs_one_failed_write_and_no_read(
    cloud: Cloud, clock: HandClock, gone: str
) -> None:
    api, delivery = cloud.timers(), cloud.delivery(HandSender(clock))
    timer = api.set(TENANT, TimerRequest(url=URL, delay_ms=5_000))
    wakeup = timer.wakeup()
    cloud.store.identity()  # read once a process
    clock.now = timer.due_at
    if gone == "settled":
        delivery.deliver(wakeup)
    elif gone == "cancelled":
        api.cancel(TENANT, timer.id)
    else:
        cloud.store.reschedule(change_of(timer, at=int(clock.now), now=int(clock.now)))
    cloud.calls.clear()

    delivery.deliver(wakeup)

    assert cloud.operations() == ["UpdateItem"]
