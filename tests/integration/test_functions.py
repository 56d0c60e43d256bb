"""The Lambda functions beside the API, invoked as Lambda invokes them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chalice.app import Chalice
from chalice.test import Client

from chalicelib.aws import message
from chalicelib.aws.names import Names
from chalicelib.domain.moment import When
from chalicelib.domain.timer import Status, Timer, Wakeup
from chalicelib.functions import BATCH_SIZE, create_functions
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.delivery import Delivery
from chalicelib.service.ports import Metric, NoTelemetry, Telemetry
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import TimerRequest
from tests.support.clock import START, ManualClock
from tests.support.factories import DUE, LEASE_MS, TENANT, change_of, set_timer
from tests.support.meter import RecordingMeter
from tests.support.moto_stage import MotoStage
from tests.support.sender import FakeSender

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sender(clock: ManualClock) -> FakeSender:
    return FakeSender(clock)


@pytest.fixture
def meter() -> RecordingMeter:
    return RecordingMeter()


@dataclass
class FakeUseCases:
    """The use cases of the functions, put together by a test."""

    delivery: Delivery
    sweeper: Sweeper
    telemetry: Telemetry

    @property
    def api_keys(self) -> ApiKeys:
        raise AssertionError("no function here asks who calls")


class RecordingTelemetry(NoTelemetry):
    """Telemetry that counts with the meter of the test."""

    def __init__(self, meter: RecordingMeter) -> None:
        self._meter = meter

    def meter(self, metric: Metric, value: float) -> None:
        self._meter(metric, value)


@pytest.fixture
def client(stage: MotoStage, sender: FakeSender, meter: RecordingMeter) -> Iterator[Client]:
    """Return a client of an app that has the functions, on the stage of the test."""
    use_cases = FakeUseCases(
        stage.delivery(sender, meter), stage.sweeper(), RecordingTelemetry(meter)
    )
    app = Chalice("timers", configure_logs=False)
    app.register_blueprint(create_functions(use_cases, Names("dev")).blueprint)
    with Client(app) as client:
        yield client


def queue(client: Client, *bodies: str) -> None:
    """Invoke the function of the queue with a batch."""
    event = client.events.generate_sqs_event(list(bodies), queue_name="timers-dev-webhooks")
    client.lambda_.invoke("webhook_queue", event)


def scheduled(client: Client) -> Any:
    event = client.events.generate_cw_event("aws.events", "Scheduled Event", {}, [])
    return client.lambda_.invoke("sweeper", event).payload


def webhook(client: Client, event: Any) -> Any:
    return client.lambda_.invoke("webhook", event).payload


def body(timer: Timer) -> str:
    return message.encode(timer.wakeup())


def fired(stage: MotoStage, timer: Timer) -> bool:
    return stage.store.get(TENANT, timer.id).status is Status.FIRED


# The function of the queue


def test_a_batch_of_messages_is_delivered(
    client: Client, stage: MotoStage, clock: ManualClock, sender: FakeSender, meter: RecordingMeter
) -> None:
    timers = [set_timer(stage.store) for _ in range(BATCH_SIZE)]
    clock.now = DUE

    queue(client, *map(body, timers))

    assert len(sender.sent) == BATCH_SIZE
    assert all(fired(stage, timer) for timer in timers)
    assert len(meter.of(Metric.FIRED)) == BATCH_SIZE


def test_foreign_messages_are_counted_and_dropped_and_the_rest_delivered(
    client: Client,
    stage: MotoStage,
    clock: ManualClock,
    meter: RecordingMeter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE
    foreign = ["", "hello", '{"Records": []}', '{"wakeup": [1, "default", "1", 1, 1]}']

    queue(client, *foreign, body(timer))

    assert fired(stage, timer)
    assert meter.of(Metric.DROPPED) == [1] * len(foreign)
    dropped = [record for record in caplog.records if "is dropped" in record.message]
    assert {record.levelno for record in dropped} == {logging.ERROR}


def test_a_message_for_a_timer_that_is_gone_is_dropped(
    client: Client, stage: MotoStage, clock: ManualClock, sender: FakeSender
) -> None:
    timer = set_timer(stage.store)
    stage.store.cancel(TENANT, timer.id, START)
    clock.now = DUE

    queue(client, body(timer))

    assert sender.sent == []
    assert stage.sent() == []


def test_a_failed_delivery_is_put_back_as_a_new_message(
    client: Client, stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE
    stage.fail("UpdateItem")

    queue(client, body(timer))

    ((wakeup, delay),) = stage.sent()
    assert wakeup.id == timer.id
    assert delay > 0


def test_a_batch_fails_only_if_a_message_could_not_be_put_back(
    client: Client, stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE
    stage.fail()

    with pytest.raises(Exception, match="cannot be"):
        queue(client, body(timer))


# The function that Scheduler and operators invoke


def test_an_early_schedule_queues_a_message_delayed_by_the_exact_rest(
    client: Client, stage: MotoStage, clock: ManualClock, sender: FakeSender
) -> None:
    timer = set_timer(stage.store, due_at=START + 3_600_000)
    clock.now = timer.due_at - 400_500

    assert webhook(client, json.loads(body(timer))) == {}

    assert stage.sent() == [(timer.wakeup(), 400)]
    assert sender.sent == []


def test_a_schedule_that_comes_late_delivers_at_once(
    client: Client, stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE + 60_000

    assert webhook(client, json.loads(body(timer))) == {"status": 204, "error": None}
    assert fired(stage, timer)


@pytest.mark.parametrize("change", ["gone", "rescheduled"])
def test_a_schedule_of_a_removed_or_rescheduled_timer_does_nothing(
    client: Client, stage: MotoStage, clock: ManualClock, sender: FakeSender, change: str
) -> None:
    timer = set_timer(stage.store)
    if change == "gone":
        stage.store.cancel(TENANT, timer.id, START)
    else:
        stage.store.reschedule(change_of(timer, at=DUE + 1, now=START))
    clock.now = DUE + 1

    assert webhook(client, json.loads(body(timer))) == {}
    assert sender.sent == []


def test_an_operator_delivers_a_timer_by_its_id(
    client: Client, stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE

    assert webhook(client, {"id": timer.id}) == {"status": 204, "error": None}
    assert webhook(client, {"id": timer.id}) == {}


def test_an_operator_may_name_a_tenant(
    client: Client, stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store, tenant="other")
    clock.now = DUE

    assert webhook(client, {"id": timer.id, "tenant": "other"})["status"] == 204


@pytest.mark.parametrize(
    "event", [{}, [], None, {"id": "1"}, {"id": True}, {"id": 4_711}, {"wakeup": [1]}]
)
def test_an_invalid_request_fails_the_invocation(
    client: Client, sender: FakeSender, event: Any
) -> None:
    with pytest.raises(Exception, match=r"not a wake-up|no timer 4711"):
        webhook(client, event)
    assert sender.sent == []


# The sweeper


def test_the_sweeper_queues_missed_timers(
    client: Client, stage: MotoStage, clock: ManualClock, meter: RecordingMeter
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE + LEASE_MS

    assert scheduled(client) == {"sent": 1, "finished": True}
    assert scheduled(client) == {"sent": 0, "finished": True}

    assert [wakeup for wakeup, _ in stage.sent()] == [timer.wakeup()]
    assert meter.of(Metric.SWEPT) == [1, 0]
    assert meter.of(Metric.OVERDUE_MS) == [LEASE_MS, 0]


def test_a_timer_set_by_the_api_is_delivered(
    client: Client, stage: MotoStage, clock: ManualClock, sender: FakeSender
) -> None:
    near = stage.timers().set(TENANT, TimerRequest(url="http://h", when=When(5_000)))
    far = stage.timers().set(TENANT, TimerRequest(url="http://h", when=When(3_600_000)))
    (schedule,) = stage.schedules()

    clock.now = near.due_at
    queue(client, *map(message.encode, stage.drain()))
    clock.now = far.due_at - 180_000
    webhook(client, json.loads(schedule["Target"]["Input"]))
    clock.now = far.due_at
    wakeups: list[Wakeup] = stage.drain()
    queue(client, *map(message.encode, wakeups))

    assert [sent.at for sent in sender.sent] == [near.due_at, far.due_at]


# What a Lambda needs


def test_the_functions_beside_the_api_import_neither_the_api_nor_pydantic() -> None:
    check = (
        "import sys; from chalicelib.functions import webhook, webhook_queue, sweeper;"
        "print([name for name in ('app', 'pydantic', 'uvloop', 'sqlite3') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", check],
        cwd=PROJECT,
        env={**os.environ, "TIMERS_ENGINE": "aws"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"
