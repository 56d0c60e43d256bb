"""Wake-ups on AWS: messages for near timers, schedules for far ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ReadTimeoutError

from chalicelib.aws import message
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Wakeup
from tests.support.clock import START, ManualClock
from tests.support.moto_stage import MotoStage, empty_stage

MINUTE_MS = 60_000


def wakeup(
    delay_s: float, *, timer_id: int = 1, version: int = 1, tenant: str = "default"
) -> Wakeup:
    return Wakeup(tenant=tenant, id=timer_id, version=version, at=int(START + delay_s * 1000))


def time_of(schedule: dict[str, str]) -> float:
    """Return the time of a schedule, in epoch milliseconds."""
    at = re.fullmatch(r"at\((.*)\)", schedule["ScheduleExpression"])
    assert at
    return datetime.fromisoformat(at[1]).replace(tzinfo=timezone.utc).timestamp() * 1000


@pytest.mark.parametrize(
    ("delay_s", "seconds"),
    [(-1, 0), (0, 0), (0.999, 0), (1, 1), (1.999, 1), (899.9, 899), (900, 900)],
)
def test_a_near_wakeup_is_a_message_whose_delay_is_rounded_down(
    stage: MotoStage, delay_s: float, seconds: int
) -> None:
    stage.wakeups.wake_at(wakeup(delay_s))

    assert stage.sent() == [(wakeup(delay_s), seconds)]
    assert stage.operations()[-1:] == ["SendMessage"]
    assert stage.schedules() == []


@pytest.mark.parametrize("delay_s", [900.001, 900.1, 3600, 10 * 365 * 86_400])
def test_a_far_wakeup_is_a_schedule_3_to_13_minutes_early(stage: MotoStage, delay_s: float) -> None:
    far = wakeup(delay_s)

    stage.wakeups.wake_at(far)

    assert stage.sent() == []
    (schedule,) = stage.schedules()
    lead_ms = far.at - time_of(schedule)
    assert 3 * MINUTE_MS <= lead_ms <= 13 * MINUTE_MS + 2_000
    assert time_of(schedule) > START + MINUTE_MS


def test_a_schedule_fires_once_in_utc_and_then_removes_itself(stage: MotoStage) -> None:
    far = wakeup(3600)

    stage.wakeups.wake_at(far)

    (schedule,) = stage.schedules()
    assert schedule["GroupName"] == "timers-test"
    assert schedule["ScheduleExpressionTimezone"] == "UTC"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["ActionAfterCompletion"] == "DELETE"
    target = schedule["Target"]
    assert target["Arn"] == "arn:aws:lambda:eu-central-1:123456789012:function:timers-test-webhook"
    assert target["RoleArn"] == "arn:aws:iam::123456789012:role/timers-test-scheduler"
    assert target["DeadLetterConfig"]["Arn"] == (
        "arn:aws:sqs:eu-central-1:123456789012:timers-test-dead"
    )
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 900}
    assert message.read(json.loads(target["Input"])) == far


def test_schedules_for_the_same_time_are_spread_over_minutes(stage: MotoStage) -> None:
    for timer_id in range(1, 201):
        stage.wakeups.wake_at(wakeup(3600, timer_id=timer_id))

    times = sorted(time_of(call.parameters) for call in stage.calls)
    assert times[-1] - times[0] > 9 * MINUTE_MS
    assert max(later - sooner for sooner, later in pairwise(times)) < MINUTE_MS


@pytest.mark.parametrize("tenant", ["default", "a" * 255, "café/#\n"])
def test_the_name_of_a_schedule_is_valid(stage: MotoStage, tenant: str) -> None:
    stage.wakeups.wake_at(wakeup(3600, timer_id=2**62, version=2**31, tenant=tenant))

    (schedule,) = stage.schedules()
    assert re.fullmatch(r"[0-9a-zA-Z-_.]{1,64}", schedule["Name"])


def test_every_timer_tenant_and_version_has_a_schedule_of_its_own(stage: MotoStage) -> None:
    far = wakeup(3600)
    others = [replace(far, id=2), replace(far, version=2), replace(far, tenant="other")]
    for each in (far, *others):
        stage.wakeups.wake_at(each)

    assert len(stage.schedules()) == 4


def test_a_schedule_that_is_there_already_counts_as_registered(stage: MotoStage) -> None:
    stage.wakeups.wake_at(wakeup(3600))
    stage.wakeups.wake_at(wakeup(3600))

    assert len(stage.schedules()) == 1


def test_a_forgotten_wakeup_leaves_no_schedule_but_that_of_another_version(
    stage: MotoStage,
) -> None:
    stage.wakeups.wake_at(wakeup(3600))
    stage.wakeups.wake_at(wakeup(3600, version=2))

    stage.wakeups.forget(wakeup(3600))

    (schedule,) = stage.schedules()
    assert f"-2-{wakeup(3600).at}" in schedule["Name"]


def test_forgetting_is_best_effort(stage: MotoStage) -> None:
    stage.wakeups.forget(wakeup(3600))
    stage.fail()
    stage.wakeups.forget(wakeup(3600))


def test_forgetting_a_wakeup_on_the_queue_costs_no_call(stage: MotoStage) -> None:
    stage.calls.clear()

    stage.wakeups.forget(wakeup(100))

    assert stage.operations() == []


@pytest.mark.parametrize("delay_s", [1, 3600])
@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ThrottlingException"}}, "Whatever"),
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "Whatever"),
        ReadTimeoutError(endpoint_url="https://aws.example"),
        NoCredentialsError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_wakeup_that_cannot_be_registered_raises_unavailable(
    stage: MotoStage, delay_s: float, error: Exception
) -> None:
    def refuse(_operation: str) -> None:
        raise error

    stage.before_call = refuse

    with pytest.raises(Unavailable):
        stage.wakeups.wake_at(wakeup(delay_s))


@pytest.mark.parametrize(
    ("delay_s", "code"),
    [(1, "AWS.SimpleQueueService.NonExistentQueue"), (3600, "ResourceNotFoundException")],
)
def test_the_error_for_a_missing_stage_names_the_command_that_makes_it(
    stage: MotoStage, delay_s: float, code: str
) -> None:
    def miss(operation: str) -> None:
        raise ClientError({"Error": {"Code": code}}, operation)

    stage.before_call = miss

    with pytest.raises(Unavailable, match="make infra"):
        stage.wakeups.wake_at(wakeup(delay_s))


def test_a_queue_is_looked_up_once(stage: MotoStage) -> None:
    stage.calls.clear()
    for _ in range(3):
        stage.wakeups.wake_at(wakeup(1))

    assert stage.operations() == ["SendMessage"] * 3


def test_many_wakeups_go_ten_a_call_and_each_with_its_own_delay(stage: MotoStage) -> None:
    stage.calls.clear()
    many = [wakeup(timer_id / 2, timer_id=timer_id) for timer_id in range(1, 26)]

    assert stage.wakeups.wake_all(many) == many

    assert stage.sent() == [(each, each.id // 2) for each in many]
    assert stage.operations() == ["SendMessageBatch"] * 3


def test_no_message_is_delayed_for_longer_than_a_queue_can(stage: MotoStage) -> None:
    stage.wakeups.wake_all([wakeup(5_000)])

    assert stage.sent() == [(wakeup(5_000), 900)]


def test_no_wakeups_cost_no_call(stage: MotoStage) -> None:
    stage.calls.clear()

    assert stage.wakeups.wake_all([]) == []
    assert stage.operations() == []


def test_a_lowered_near_limit_sends_later_wakeups_to_scheduler(clock: ManualClock) -> None:
    with empty_stage(clock, near_s=5) as stage:
        stage.wakeups.wake_at(wakeup(5))
        stage.wakeups.wake_at(wakeup(8, timer_id=2))

        assert [delay for _, delay in stage.sent()] == [5]
        (schedule,) = stage.schedules()
        assert START + 3_000 <= time_of(schedule) <= START + 7_000


def test_the_backlog_counts_messages_ready_to_be_received(stage: MotoStage) -> None:
    stage.wakeups.wake_all([wakeup(0, timer_id=timer_id) for timer_id in range(1, 6)])
    stage.wakeups.wake_at(wakeup(60))
    assert stage.wakeups.backlog() == 5

    stage.receive(most=3)
    assert stage.wakeups.backlog() == 2


# Messages


def test_a_message_is_read_as_it_was_written() -> None:
    for each in (wakeup(1), wakeup(3600, timer_id=2**62, tenant="café #1", version=9)):
        assert message.decode(message.encode(each)) == each


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[" * 100_000,
        "null",
        "[]",
        "{}",
        '{"wakeup": {}}',
        '{"wakeup": [1, "default", 1, 1]}',
        '{"wakeup": [1, "default", 1, 1, 1, 1]}',
        '{"wakeup": [1, "default", true, 1, 1]}',
        '{"wakeup": [1, "default", 1.0, 1, 1]}',
        '{"wakeup": [1, null, 1, 1, 1]}',
        '{"wakeup": [2, "default", 1, 1, 1]}',
        '{"wakeup": [1, "default", -1, 1, 1]}',
        '{"wakeup": [1, "default", 1, 1, NaN]}',
        '{"wakeup": [1, "default", 1, 1, 1e400]}',
        f'{{"wakeup": [1, "default", {10**40}, 1, 1]}}',
        f'{{"wakeup": [1, "default", 1, 1, {10**400}]}}',
        f'{{"wakeup": [1, "default", {"9" * 5_000}, 1, 1]}}',
        '{"wakeup": [1, "", 1, 1, 1]}',
        '{"wakeup": [1, "\\ud800", 1, 1, 1]}',
        f'{{"wakeup": [1, "{"x" * 3_000}", 1, 1, 1]}}',
    ],
)
def test_a_text_without_a_wakeup_is_rejected(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter
        message.decode(text)
