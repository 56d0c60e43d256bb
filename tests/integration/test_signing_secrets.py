"""The signing secrets of a stage: how they are read and cached, and what faults do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.aws.engine import AwsEngine
from chalicelib.aws.secrets import (
    ABSENT_TTL_MS,
    FAILURE_TTL_MS,
    SECRETS_TTL_MS,
    STALE_TTL_MS,
    SigningSecrets,
)
from chalicelib.bootstrap import engine_options
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.signing import PREFIX, write_secret
from chalicelib.domain.timer import Status
from chalicelib.service.delivery import MAX_WAIT_MS, PUT_BACK_MS
from chalicelib.settings import load
from tests.support.clock import ManualClock
from tests.support.factories import DUE, TENANT, set_timer
from tests.support.moto_stage import NAMES, MotoStage
from tests.support.sender import FakeSender
from tests.support.waiting import PATIENCE_S

OLD, NEW = b"o" * 32, b"n" * 32
MALFORMED = [" ", "secret", f"{PREFIX}c2hvcnQ=", f"{write_secret(OLD)} {PREFIX}é"]


@pytest.fixture
def secrets(stage: MotoStage) -> SigningSecrets:
    return stage.signing_secrets()


def asked(stage: MotoStage) -> int:
    """Return how often SSM was asked since the last time."""
    return stage.operations().count("GetParameter")


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "No."}}, "GetParameter")


REFUSALS = {
    "throttled": refusal("ThrottlingException"),
    "denied": refusal("AccessDeniedException"),
    "broken": refusal("InternalServerError"),
    "slow": ReadTimeoutError(endpoint_url="https://ssm.example"),
}


def fail_ssm(stage: MotoStage, failure: Exception = REFUSALS["throttled"]) -> None:
    def refuse(operation: str) -> None:
        if operation == "GetParameter":
            raise failure

    stage.before_call = refuse


# What is read, and how often


def test_without_a_parameter_nothing_is_signed(stage: MotoStage, secrets: SigningSecrets) -> None:
    assert tuple(secrets()) == ()
    assert asked(stage) == 1


def test_the_parameter_is_read_by_its_name_and_decrypted(
    stage: MotoStage, secrets: SigningSecrets
) -> None:
    secrets()
    (call,) = stage.calls
    assert call.parameters == {"Name": "/timers-test/signing-secrets", "WithDecryption": True}


def test_every_secret_of_the_parameter_signs_in_its_order(
    stage: MotoStage, secrets: SigningSecrets
) -> None:
    stage.put_secrets(f"{write_secret(NEW)} {write_secret(OLD)}")
    assert secrets() == (NEW, OLD)


@pytest.mark.parametrize(
    ("before", "kept_ms"), [("", ABSENT_TTL_MS), (write_secret(OLD), SECRETS_TTL_MS)]
)
def test_secrets_are_cached_for_minutes_and_their_absence_for_less(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock, before: str, kept_ms: int
) -> None:
    assert ABSENT_TTL_MS <= 30_000 < SECRETS_TTL_MS
    if before:
        stage.put_secrets(before)
    first = secrets()
    stage.put_secrets(write_secret(NEW))

    clock.advance(kept_ms - 1)
    assert secrets() == first
    assert asked(stage) == 1
    clock.advance(1)
    assert secrets() == (NEW,)
    assert asked(stage) == 1


def test_a_clock_that_is_put_back_keeps_nothing_cached_longer(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock
) -> None:
    secrets()
    stage.put_secrets(write_secret(NEW))
    clock.advance(-1)
    assert secrets() == (NEW,)


def test_a_parameter_that_was_removed_ends_the_signing_and_is_logged(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stage.put_secrets(write_secret(OLD))
    secrets()
    stage.ssm.delete_parameter(Name=NAMES.signing_secrets)
    clock.advance(SECRETS_TTL_MS)

    assert tuple(secrets()) == ()
    assert [record.message for record in caplog.records] == [
        f"{NAMES.signing_secrets} is gone: webhooks are no longer signed"
    ]


def test_the_client_is_made_when_first_needed(clock: ManualClock) -> None:
    def make() -> Any:
        raise AssertionError("a client was made")

    SigningSecrets(make, NAMES.signing_secrets, clock)


# While SSM is away


@pytest.mark.parametrize("failure", REFUSALS)
def test_without_a_response_of_ssm_nothing_may_be_sent_unsigned(
    stage: MotoStage, secrets: SigningSecrets, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    fail_ssm(stage, REFUSALS[failure])
    with pytest.raises(Unavailable, match=f"signing secrets in {NAMES.signing_secrets}"):
        secrets()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message.endswith("webhooks wait")


def test_a_failure_is_cached_for_a_short_time(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock
) -> None:
    stage.put_secrets(write_secret(OLD))
    fail_ssm(stage)
    with pytest.raises(Unavailable):
        secrets()
    stage.heal()
    clock.advance(FAILURE_TTL_MS - 1)
    with pytest.raises(Unavailable):
        secrets()
    assert asked(stage) == 0

    clock.advance(1)
    assert secrets() == (OLD,)


def test_earlier_keys_stay_in_use_with_a_warning(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stage.put_secrets(write_secret(OLD))
    secrets()
    fail_ssm(stage)
    clock.advance(SECRETS_TTL_MS)

    assert secrets() == (OLD,)
    assert secrets() == (OLD,)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ThrottlingException" in record.message
    stage.heal()
    stage.put_secrets(write_secret(NEW))
    clock.advance(STALE_TTL_MS)
    assert secrets() == (NEW,)


def test_the_absence_of_secrets_stays_cached_while_ssm_is_unavailable(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock
) -> None:
    secrets()
    fail_ssm(stage)
    clock.advance(ABSENT_TTL_MS)
    assert tuple(secrets()) == ()
    stage.heal()
    stage.put_secrets(write_secret(NEW))
    clock.advance(ABSENT_TTL_MS)
    assert secrets() == (NEW,)


@pytest.mark.parametrize("text", MALFORMED)
def test_a_parameter_that_holds_no_secrets_stops_deliveries_loudly_and_is_not_shown(
    stage: MotoStage, secrets: SigningSecrets, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    stage.put_secrets(text)
    with pytest.raises(Unavailable) as refused:
        secrets()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert NAMES.signing_secrets in record.message
    for word in text.split():
        hidden = word.removeprefix(PREFIX)
        assert hidden == "secret" or hidden not in record.message + refused.value.detail


def test_a_parameter_that_is_spoilt_later_leaves_the_earlier_keys_in_use(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stage.put_secrets(write_secret(OLD))
    secrets()
    stage.put_secrets("spoilt")
    clock.advance(SECRETS_TTL_MS)

    assert secrets() == (OLD,)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("absent_before", [True, False])
def test_after_a_spoilt_parameter_its_absence_does_not_allow_unsigned_webhooks(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock, text: str, *, absent_before: bool
) -> None:
    if absent_before:
        assert tuple(secrets()) == ()
    stage.put_secrets(text)
    clock.advance(ABSENT_TTL_MS)
    with pytest.raises(Unavailable):
        secrets()
    stage.ssm.delete_parameter(Name=NAMES.signing_secrets)
    for _ in range(3):
        clock.advance(FAILURE_TTL_MS)
        with pytest.raises(Unavailable):
            secrets()
    fail_ssm(stage)
    clock.advance(FAILURE_TTL_MS)
    with pytest.raises(Unavailable):
        secrets()

    stage.heal()
    stage.put_secrets(write_secret(NEW))
    clock.advance(FAILURE_TTL_MS)
    assert secrets() == (NEW,)
    stage.ssm.delete_parameter(Name=NAMES.signing_secrets)
    clock.advance(SECRETS_TTL_MS)
    assert tuple(secrets()) == ()


def test_earlier_keys_stay_in_use_when_the_spoilt_parameter_is_removed(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock
) -> None:
    stage.put_secrets(write_secret(OLD))
    secrets()
    stage.put_secrets("spoilt")
    clock.advance(SECRETS_TTL_MS)
    secrets()
    stage.ssm.delete_parameter(Name=NAMES.signing_secrets)
    clock.advance(STALE_TTL_MS)
    assert secrets() == (OLD,)


def test_a_process_that_found_no_parameter_signs_soon_after_it_is_made(
    stage: MotoStage, clock: ManualClock
) -> None:
    """Who saw it spoilt sends nothing in between; who is new cannot know, for 30 s at most."""
    stage.put_secrets("spoilt")
    old = stage.signing_secrets()
    with pytest.raises(Unavailable):
        old()
    stage.ssm.delete_parameter(Name=NAMES.signing_secrets)
    clock.advance(FAILURE_TTL_MS)
    new = stage.signing_secrets()
    with pytest.raises(Unavailable):
        old()
    assert tuple(new()) == ()

    stage.put_secrets(write_secret(NEW))
    clock.advance(FAILURE_TTL_MS)
    assert old() == (NEW,)
    clock.advance(ABSENT_TTL_MS - FAILURE_TTL_MS)
    assert new() == (NEW,)


def test_one_delivery_of_a_batch_reads_the_secrets_for_all(
    stage: MotoStage, secrets: SigningSecrets
) -> None:
    stage.put_secrets(write_secret(OLD))
    together = threading.Barrier(8)
    seen: list[Any] = []

    def ask() -> None:
        together.wait()
        seen.append(secrets())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(OLD,)] * 8
    assert asked(stage) == 1


def test_while_one_delivery_reads_again_the_others_use_the_earlier_keys(
    stage: MotoStage, secrets: SigningSecrets, clock: ManualClock
) -> None:
    stage.put_secrets(write_secret(OLD))
    secrets()
    clock.advance(SECRETS_TTL_MS)
    asking, respond = threading.Event(), threading.Event()

    def hang(_operation: str) -> None:
        asking.set()
        respond.wait()

    stage.before_call = hang
    seen: list[Any] = []
    slow = threading.Thread(target=secrets)
    other = threading.Thread(target=lambda: seen.append(secrets()))
    slow.start()
    asking.wait()
    other.start()
    other.join(PATIENCE_S)
    before_the_response = list(seen)
    respond.set()
    slow.join()
    other.join()
    assert before_the_response == [(OLD,)]


# Deliveries


def deliverer(stage: MotoStage, sender: FakeSender) -> Callable[..., None]:
    return stage.delivery(sender, signing_keys=stage.signing_secrets()).deliver_all


def test_a_delivery_is_signed_with_the_secrets_of_the_parameter(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.put_secrets(f"{write_secret(NEW)} {write_secret(OLD)}")
    timer, sender = set_timer(stage.store), FakeSender(clock)
    clock.now = DUE
    deliverer(stage, sender)([timer.wakeup()])
    (sent,) = sender.sent
    assert sent.call.headers["webhook-signature"].count("v1,") == 2


def test_without_keys_a_wakeup_is_put_back_and_its_timer_is_not_claimed(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.put_secrets(write_secret(OLD))
    timer, sender = set_timer(stage.store), FakeSender(clock)
    deliver = deliverer(stage, sender)
    clock.now = DUE
    fail_ssm(stage)

    deliver([timer.wakeup()])

    assert sender.sent == []
    assert stage.store.get(TENANT, timer.id) == timer
    assert stage.sent() == [
        (replace(timer.wakeup(), at=DUE + PUT_BACK_MS, put_backs=1), PUT_BACK_MS // 1000)
    ]

    stage.heal()
    clock.advance(PUT_BACK_MS)
    deliver(stage.drain())
    (sent,) = sender.sent
    assert "webhook-signature" in sent.call.headers
    assert stage.store.get(TENANT, timer.id).status is Status.FIRED


def test_an_early_wakeup_reads_the_keys_during_its_wait_and_is_not_late(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer, sender = set_timer(stage.store), FakeSender(clock)
    deliver = deliverer(stage, sender)
    clock.now = DUE - MAX_WAIT_MS
    stage.before_call = lambda operation: clock.advance(300 if operation == "GetParameter" else 0)

    deliver([timer.wakeup()])

    assert [sent.at for sent in sender.sent] == [DUE]


def test_a_wakeup_that_is_much_too_early_needs_no_keys(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE - MAX_WAIT_MS - 1
    deliverer(stage, FakeSender(clock))([timer.wakeup()])
    assert stage.operations().count("GetParameter") == 0


# Which process asks


@pytest.mark.parametrize(
    ("environment", "asks"),
    [
        ({"AWS_LAMBDA_FUNCTION_NAME": "timers-dev-webhook"}, True),
        (
            {
                "AWS_LAMBDA_FUNCTION_NAME": "timers-dev-webhook",
                "TIMERS_SIGNING_SECRETS": write_secret(OLD),
            },
            False,
        ),
        ({"TIMERS_ENGINE": "aws"}, False),
        ({}, False),
    ],
)
def test_only_a_lambda_without_a_configured_secret_reads_the_parameter(
    environment: dict[str, str], *, asks: bool
) -> None:
    settings = load(environment)
    options = engine_options(settings)
    assert options.signing_keys == (None if asks else settings.signing_keys)
    keys = AwsEngine(NAMES, options, near_s=900)._signing_keys()
    assert isinstance(keys, SigningSecrets) is asks
    assert asks or keys() == settings.signing_keys
