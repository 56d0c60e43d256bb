"""An emulator of AWS: the resources it lacks, and the clients that point at it."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import InvalidSettings
from chalicelib.domain.moment import When
from chalicelib.domain.timer import Wakeup
from chalicelib.service.timers import TimerRequest
from infra.resources import create_missing
from local.emulator.environment import check_address, use_emulator
from tests.support.clock import START, ManualClock
from tests.support.moto_stage import NAMES, VISIBILITY_S, MotoStage
from tests.support.templates import resources

# Its resources


def test_existing_resources_are_not_changed(stage: MotoStage) -> None:
    timer = stage.timers().set("default", TimerRequest(url="http://h", when=When(5_000)))
    for _ in range(2):
        create_missing(stage.dynamodb, stage.sqs, stage.scheduler, NAMES.stage)

    assert stage.store.get("default", timer.id) == timer
    assert len(stage.sqs.list_queues()["QueueUrls"]) == 2


def test_a_message_received_too_often_becomes_a_dead_letter(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.wakeups.wake_at(Wakeup(tenant="default", id=1, version=1, at=int(START)))

    for _ in range(5):
        assert len(stage.receive()) == 1
        clock.advance(VISIBILITY_S * 1000 + 1)
    assert stage.receive() == []
    dead = stage.sqs.get_queue_url(QueueName=NAMES.dead_letters)["QueueUrl"]
    assert len(stage.sqs.receive_message(QueueUrl=dead)["Messages"]) == 1


def test_the_queues_are_as_the_stack_makes_them(stage: MotoStage) -> None:
    create_missing(stage.dynamodb, stage.sqs, stage.scheduler, "dev")

    made = resources("dev")
    for logical in ("Queue", "DeadLetters"):
        wanted = made[logical]["Properties"]
        url = stage.sqs.get_queue_url(QueueName=wanted["QueueName"])["QueueUrl"]
        found = stage.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        for name in ("VisibilityTimeout", "MessageRetentionPeriod"):
            if name in wanted:
                assert found[name] == str(wanted[name])


def test_the_table_comes_last_so_that_a_healthy_api_has_all_the_others(stage: MotoStage) -> None:
    stage.calls.clear()
    create_missing(stage.dynamodb, stage.sqs, stage.scheduler, "dev")

    made = [name for name in stage.operations() if name.startswith("Create")]
    assert made == ["CreateQueue", "CreateQueue", "CreateScheduleGroup", "CreateTable"]


# Where the clients point


def test_only_missing_variables_are_set() -> None:
    environment = {"AWS_DEFAULT_REGION": "eu-north-1"}

    use_emulator("http://127.0.0.1:4566", environment)

    assert environment == {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-north-1",
    }


def test_the_address_of_the_emulator_is_never_ignored() -> None:
    environment = {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}

    use_emulator("http://127.0.0.1:4566", environment)

    assert "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" not in environment


def test_without_an_address_nothing_starts() -> None:
    environment: dict[str, str] = {}
    with pytest.raises(InvalidSettings, match="make emulator"):
        use_emulator("", environment)
    assert environment == {}


@pytest.mark.parametrize("address", ["http://127.0.0.1:4566", "http://localstack:4566/"])
def test_an_address_of_an_emulator_is_accepted(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:4566",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1/path",
        "https://dynamodb.eu-central-1.amazonaws.com",
        "https://DYNAMODB.cn-north-1.amazonaws.com.cn",
        "https://dynamodb.eu-central-1.api.aws",
        "https://dynamodb.eusc-de-east-1.amazonaws.eu",
    ],
)
def test_an_address_that_cannot_be_an_emulator_is_refused(address: str) -> None:
    with pytest.raises(InvalidSettings, match="AWS_ENDPOINT_URL"):
        check_address(address)
