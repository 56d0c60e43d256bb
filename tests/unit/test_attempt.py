"""One attempt: its calls, its record, and the settlement that follows."""

from __future__ import annotations

import asyncio
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.attempt_log import MAX_ATTEMPTS_KEPT, AttemptRecord
from chalicelib.domain.claim import Claimed, Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import DeliveryOptions, Lease, Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.attempt import DeliveryPolicy, Signer, attempt, run, run_async
from tests.support.clock import ManualClock
from tests.support.factories import DUE, LEASE_MS, new_timer

DELAYS = (5.0, 60.0)
TOOK_MS = 40
LATE_MS = 7
ALERT = "https://alerts.example/failed?team=a"
OK = Outcome(status=204)
REFUSED = Outcome(error="connection refused")
SERVER_ERROR = Outcome(status=500)
POLICY = DeliveryPolicy(lease_ms=LEASE_MS, retry_delays_s=DELAYS)
SIGNER = Signer(store_id="f00")
OPTIONS = {option.name for option in fields_of(DeliveryOptions)}


def claimed(*, lease_until: int = DUE + LEASE_MS, **fields: Any) -> Claimed:
    options = {name: fields.pop(name) for name in OPTIONS & fields.keys()}
    lease = Lease(token="mine", until=lease_until)
    timer = replace(Timer.first(new_timer(**options), 7), lease=lease, **fields)
    return Claimed(timer, lease)


def carried_out(claimed: Claimed, *outcomes: Outcome) -> tuple[list[Call], Settlement]:
    """Make an attempt with these outcomes, each call taking ``TOOK_MS``."""
    clock = ManualClock(DUE + LATE_MS + 0.9)
    left, calls = list(outcomes), []

    def send(call: Call) -> Outcome:
        calls.append(call)
        clock.advance(TOOK_MS)
        return left.pop(0)

    settlement = run(attempt(claimed, SIGNER, POLICY, clock, random=0.0), send)
    assert not left
    return calls, settlement


def test_an_attempt_is_recorded_with_its_lateness_and_duration() -> None:
    (call,), settlement = carried_out(claimed(), OK)

    assert call.url == "https://receiver.example/hooks/7"
    assert settlement.status is Status.FIRED
    assert settlement.now == DUE + LATE_MS + TOOK_MS
    assert settlement.log == (
        AttemptRecord(at=DUE + LATE_MS, late_ms=LATE_MS, took_ms=TOOK_MS, status=204),
    )


@pytest.mark.parametrize("outcome", [REFUSED, SERVER_ERROR])
def test_a_failed_attempt_is_recorded_and_tried_again(outcome: Outcome) -> None:
    _, settlement = carried_out(claimed(), outcome)

    (made,) = settlement.log
    assert (made.status, made.error) == (outcome.status, outcome.error)
    assert settlement.status is Status.PENDING
    assert settlement.next_attempt_at == settlement.now + 5_000


def test_a_later_attempt_is_appended_with_its_own_lateness() -> None:
    earlier = AttemptRecord(at=DUE - 5_000, late_ms=1, took_ms=2, status=503)
    timer = claimed(attempts=1, log=(earlier,), due_at=DUE - 5_000)

    _, settlement = carried_out(timer, OK)

    assert settlement.log[0] == earlier
    assert settlement.log[1].late_ms == LATE_MS


def test_an_attempt_during_which_the_clock_is_put_back_took_0_ms() -> None:
    clock = ManualClock(DUE)
    steps = attempt(claimed(), SIGNER, POLICY, clock, random=0.0)
    next(steps)
    clock.advance(-TOOK_MS)
    with pytest.raises(StopIteration) as end:
        steps.send(OK)
    assert end.value.value.log[0].took_ms == 0


def test_the_attempt_log_is_bounded() -> None:
    full = tuple(
        AttemptRecord(at=at, late_ms=0, took_ms=0, status=500) for at in range(MAX_ATTEMPTS_KEPT)
    )
    _, settlement = carried_out(claimed(log=full), OK)
    assert len(settlement.log) == MAX_ATTEMPTS_KEPT
    assert settlement.log[-1].status == 204


def test_a_timers_own_timeout_goes_with_the_call() -> None:
    (call,), _ = carried_out(claimed(timeout_s=3), OK)
    assert (call.timeout_s, call.deadline_s(10.0), call.deadline_s(2.0)) == (3, 3, 2.0)

    (call,), _ = carried_out(claimed(), OK)
    assert call.deadline_s(10.0) == 10.0


@pytest.mark.parametrize(("attempts", "status"), [(0, Status.PENDING), (1, Status.FAILED)])
def test_a_timer_gets_no_more_attempts_than_it_asked_for(attempts: int, status: Status) -> None:
    timer = claimed(max_attempts=2, attempts=attempts)
    _, settlement = carried_out(timer, SERVER_ERROR)
    assert settlement.status is status


def test_a_timer_that_fails_for_good_sends_one_failure_notice() -> None:
    timer = claimed(attempts=2, on_failure_url=ALERT)

    calls, settlement = carried_out(timer, SERVER_ERROR, REFUSED)

    assert [call.url for call in calls] == [
        "https://receiver.example/hooks/7",
        "https://alerts.example/failed/7?team=a",
    ]
    assert [call.headers["webhook-id"] for call in calls] == [
        "f00.default.7",
        "f00.default.7.failed.1",
    ]
    assert settlement.status is Status.FAILED
    webhook, notice = settlement.log
    assert (webhook.notice, webhook.status) == (False, 500)
    assert (notice.notice, notice.error) == (True, "connection refused")
    assert notice.at == webhook.at + TOOK_MS


@pytest.mark.parametrize("outcome", [OK, REFUSED])
def test_a_timer_that_has_not_failed_for_good_sends_no_failure_notice(outcome: Outcome) -> None:
    (call,), _ = carried_out(claimed(on_failure_url=ALERT), outcome)
    assert "alerts" not in call.url


def test_a_receiver_that_is_gone_causes_a_failure_notice_at_once() -> None:
    calls, settlement = carried_out(claimed(on_failure_url=ALERT), Outcome(status=410), OK)
    assert len(calls) == 2
    assert settlement.status is Status.FAILED


@pytest.mark.parametrize("lease_ends", [DUE - 1, DUE + LATE_MS + LEASE_MS // 2])
def test_no_call_starts_that_could_outlast_its_lease(lease_ends: int) -> None:
    with pytest.raises(Unavailable, match="no room"):
        carried_out(claimed(lease_until=lease_ends))


def test_a_webhook_that_outlasts_its_lease_is_not_followed_by_a_notice() -> None:
    clock = ManualClock(DUE)
    timer = claimed(attempts=2, on_failure_url=ALERT)
    steps = attempt(timer, SIGNER, POLICY, clock, random=0.0)
    next(steps)
    clock.advance(LEASE_MS)
    with pytest.raises(Unavailable, match="no room"):
        steps.send(SERVER_ERROR)


def test_a_url_that_cannot_be_called_any_more_is_an_outcome() -> None:
    calls, settlement = carried_out(claimed(url="ftp://old.example"))

    assert calls == []
    (made,) = settlement.log
    assert made.error is not None
    assert "cannot be called" in made.error
    assert settlement.status is Status.PENDING


def test_keys_are_not_shown() -> None:
    assert "sesame" not in repr(Signer(store_id="f00", keys=[b"sesame"]))


def test_an_event_loop_carries_out_the_same_attempt_as_a_thread() -> None:
    claim = claimed(attempts=2, on_failure_url=ALERT)
    outcomes = iter([SERVER_ERROR, REFUSED])
    calls: list[Call] = []

    async def send(call: Call) -> Outcome:
        calls.append(call)
        return next(outcomes)

    clock = ManualClock(DUE)
    on_a_loop = asyncio.run(run_async(attempt(claim, SIGNER, POLICY, clock, random=0.0), send))

    again = iter([SERVER_ERROR, REFUSED])
    in_a_thread = run(attempt(claim, SIGNER, POLICY, clock, random=0.0), lambda _call: next(again))
    assert on_a_loop == in_a_thread
    assert len(calls) == 2
