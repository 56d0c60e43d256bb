"""The decision after an attempt: success, retry or failure."""

from __future__ import annotations

import pytest

from chalicelib.domain.retry import (
    DEFAULT_DELAYS_S,
    JITTER,
    MAX_RETRY_AFTER_S,
    Decision,
    attempts_allowed,
    decide,
    succeeded,
)
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome

NOW = 1_800_000_000_000


def decision(
    outcome: Outcome,
    *,
    attempts: int = 0,
    delays: tuple[float, ...] = (5, 60),
    random: float = 0.0,
) -> Decision:
    timer = Timer(
        tenant="default",
        id=1,
        url="http://h",
        created_at=NOW,
        due_at=NOW,
        next_attempt_at=NOW,
        attempts=attempts,
    )
    return decide(timer, outcome, now=NOW, delays=delays, random=random)


@pytest.mark.parametrize(("wish", "allowed"), [(None, 3), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_a_timer_gets_the_attempts_it_asked_for_up_to_the_limit(
    wish: int | None, allowed: int
) -> None:
    assert attempts_allowed((5, 60), wish) == allowed


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_every_2xx_is_a_success(status: int) -> None:
    assert decision(Outcome(status=status)) == Decision(status=Status.FIRED)


@pytest.mark.parametrize("status", [100, 101, 199, 300, 301, 302, 304, 307, 308, 400, 404, 500])
def test_every_other_status_is_a_failure(status: int) -> None:
    assert not succeeded(Outcome(status=status))


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 408, 409, 413, 429, 500, 502, 503])
def test_a_status_that_may_be_temporary_is_retried(status: int) -> None:
    assert decision(Outcome(status=status)) == Decision(
        status=Status.PENDING, next_attempt_at=NOW + 5_000
    )


def test_a_call_without_a_response_is_retried() -> None:
    assert decision(Outcome(error="connection refused")).next_attempt_at == NOW + 5_000


def test_a_receiver_that_is_gone_is_given_up_at_once() -> None:
    assert decision(Outcome(status=410)) == Decision(status=Status.FAILED)


def test_a_success_on_the_last_attempt_counts() -> None:
    assert decision(Outcome(status=200), attempts=2).status is Status.FIRED


def test_each_attempt_waits_for_the_delay_after_it() -> None:
    assert decision(Outcome(status=500), attempts=1).next_attempt_at == NOW + 60_000


def test_the_attempt_after_the_last_delay_is_the_last() -> None:
    assert decision(Outcome(status=500), attempts=2) == Decision(status=Status.FAILED)


def test_without_delays_there_is_one_attempt() -> None:
    assert decision(Outcome(status=500), delays=()) == Decision(status=Status.FAILED)


def test_more_attempts_than_delays_fail() -> None:
    assert decision(Outcome(status=500), attempts=9).status is Status.FAILED


def test_jitter_lengthens_a_delay_and_never_shortens_it() -> None:
    longest = decision(Outcome(status=500), random=0.999_999).next_attempt_at
    middle = decision(Outcome(status=500), random=0.5).next_attempt_at
    assert middle == NOW + 5_000 * (1 + JITTER / 2)
    assert longest is not None
    assert NOW + 5_000 < longest < NOW + 5_000 * (1 + JITTER)


@pytest.mark.parametrize(
    ("wish", "delay_s"), [(0, 5), (3, 5), (30, 30), (MAX_RETRY_AFTER_S, 86_400), (10**9, 86_400)]
)
def test_a_receiver_may_delay_the_next_attempt_by_up_to_a_day_and_never_hasten_it(
    wish: float, delay_s: int
) -> None:
    outcome = Outcome(status=503, retry_after=wish)
    assert decision(outcome).next_attempt_at == NOW + delay_s * 1000


def test_the_default_delays_grow_and_last_for_days() -> None:
    assert list(DEFAULT_DELAYS_S) == sorted(DEFAULT_DELAYS_S)
    assert DEFAULT_DELAYS_S[0] == 5
    assert sum(DEFAULT_DELAYS_S) > 3 * 24 * 3600
