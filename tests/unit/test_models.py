"""Response bodies fit their models, from which the OpenAPI document is made."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from chalicelib.domain import errors
from chalicelib.domain.attempt_log import AttemptRecord
from chalicelib.domain.errors import Fault
from chalicelib.domain.timer import DeliveryOptions, Status, Timer
from chalicelib.rest import models, responses
from chalicelib.rest.models import attempt_item, replay_result, timer_item, timer_status
from chalicelib.rest.problems import document_of
from chalicelib.rest.responses import Success
from chalicelib.service.many_timers import Done
from tests.support.clock import START
from tests.support.factories import new_timer

FAILURE = AttemptRecord(at=START, late_ms=3, took_ms=48, status=410)
NOTICE = AttemptRecord(at=START, late_ms=51, took_ms=12, error="no connection", notice=True)
PENDING = Timer.first(new_timer(), 1)
FAILED = Timer(
    tenant="default",
    id=2,
    url="https://h/",
    created_at=START,
    due_at=START + 5,
    status=Status.FAILED,
    attempts=1,
    options=DeliveryOptions(max_attempts=3, timeout_s=5, on_failure_url="https://f/"),
    log=(FAILURE, NOTICE),
)
SUCCESSES = {name: each for name, each in vars(responses).items() if isinstance(each, Success)}


def assert_is(model: Any, body: object) -> None:
    """Check that ``body`` is what ``model`` describes, field by field and in its order."""
    # What the model does not have is left out by pydantic, so that the two differ then.
    assert repr(TypeAdapter(model).validate_python(body, strict=True)) == repr(body)


@pytest.mark.parametrize("timer", [PENDING, FAILED], ids=["pending", "failed"])
def test_the_body_of_a_timer_fits_its_models(timer: Timer) -> None:
    assert_is(models.TimerStatus, timer_status(timer, START))
    assert_is(models.TimerItem, timer_item(timer, START))


@pytest.mark.parametrize("attempt", [FAILURE, NOTICE], ids=["webhook", "on_failure"])
def test_the_body_of_an_attempt_fits_its_model(attempt: AttemptRecord) -> None:
    assert_is(models.AttemptItem, attempt_item(attempt))


@pytest.mark.parametrize("before", [None, 7])
def test_the_body_of_a_replay_fits_its_model(before: int | None) -> None:
    outcome = Done(matching=2, changed=1, before=before)
    assert_is(models.ReplayResult, replay_result(outcome))


def test_the_body_of_a_problem_fits_its_models() -> None:
    assert_is(models.Problem, document_of(errors.TimerNotFound("x"), 404))
    invalid = errors.InvalidRequest([Fault("url", "is required")])
    assert_is(models.InvalidRequestProblem, document_of(invalid, 422))


@pytest.mark.parametrize("success", SUCCESSES.values(), ids=SUCCESSES)
def test_the_example_of_a_response_fits_its_model(success: Success[Any]) -> None:
    assert_is(success.body, success.example)


def test_a_field_that_no_model_has_is_found() -> None:
    with pytest.raises(AssertionError):
        assert_is(models.TimerId, {"id": 1, "url": "https://h/"})
