"""Invariants at the end of a run, after it has quiesced; and one for errors at any time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

from chalicelib.domain.attempt_log import GONE
from chalicelib.domain.retry import succeeded
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome
from tests.simulation.invariants.violation import InvariantViolation
from tests.simulation.promises import Promise

MAX_LATE_WITHOUT_FAULTS_MS = 1_500.0


def only_requested_timers_are_stored(unknown: Mapping[tuple[str, int], Timer]) -> None:
    """Every stored row belongs to a timer that a client has requested."""
    if unknown:
        raise InvariantViolation(only_requested_timers_are_stored, unknown)


def every_timer_is_settled(promise: Promise, row: Timer) -> None:
    """In the end every stored timer has fired or failed.

    Invariants 6 and 7 of docs/design.md.
    """
    if row.next_attempt_at is not None or row.status is Status.PENDING:
        raise InvariantViolation(every_timer_is_settled, promise, row)


def every_recorded_attempt_counts(promise: Promise, row: Timer) -> None:
    """A row's attempt count is the number of attempts recorded since the last replay."""
    if row.attempts != len(promise.recorded) - promise.recorded_before:
        raise InvariantViolation(every_recorded_attempt_counts, promise, row, len(promise.recorded))


def no_attempt_has_a_negative_duration(promise: Promise, row: Timer) -> None:
    """No attempt is recorded with a negative duration, even if the clock was set back."""
    if any(made.took_ms < 0 for made in row.log):
        raise InvariantViolation(no_attempt_has_a_negative_duration, promise, row.log)


def attempt_records_are_true(promise: Promise, row: Timer) -> None:
    """The attempt records have the start, status and error of what the senders did and saw."""
    log = [(made.at, made.status, made.error) for made in row.log if not made.notice]
    seen = [
        (math.floor(sent.started_at), sent.outcome.status, sent.outcome.error)
        for sent in promise.recorded
        if sent.outcome is not None
    ]
    if log != seen[-len(log) :] or (seen and not log):
        raise InvariantViolation(attempt_records_are_true, promise, row.log, seen)


def fired_timer_was_received(promise: Promise, row: Timer, outcomes: Sequence[Outcome]) -> None:
    """A timer is stored as fired only if a receiver accepted its webhook.

    Invariant 6 of docs/design.md.
    """
    if row.status is Status.FIRED and not any(map(succeeded, outcomes)):
        raise InvariantViolation(fired_timer_was_received, promise, row)


def timer_fails_only_after_all_attempts(
    promise: Promise, row: Timer, outcomes: Sequence[Outcome], max_attempts: int
) -> None:
    """A timer fails only once all its attempts are spent, or once a receiver responded 410.

    Invariant 6 of docs/design.md.
    """
    gone = any(outcome.status == GONE for outcome in outcomes)
    allowed = min(max_attempts, promise.request.options.max_attempts or max_attempts)
    if not gone and row.attempts < allowed:
        raise InvariantViolation(timer_fails_only_after_all_attempts, promise, row)


def failure_notice_is_sent(promise: Promise) -> None:
    """The ``on_failure_url`` of a failed timer has been called."""
    if promise.request.options.on_failure_url and not promise.failure_notices:
        raise InvariantViolation(failure_notice_is_sent, promise)


def without_faults_each_attempt_is_made_once(promise: Promise) -> None:
    """In a run without faults, every call is recorded and at most one is accepted, or repeats.

    Invariant 6 of docs/design.md.
    """
    accepted = sum(succeeded(sent.outcome) for sent in promise.sent if sent.outcome)
    if accepted > 1 + promise.repeats or len(promise.sent) != len(promise.recorded):
        raise InvariantViolation(without_faults_each_attempt_is_made_once, promise)


def without_faults_webhooks_are_on_time(promise: Promise) -> None:
    """In a run without faults, no webhook is late by more than 1.5 s."""
    late_ms = max((sent.lateness_ms for sent in promise.sent), default=0.0)
    if late_ms > MAX_LATE_WITHOUT_FAULTS_MS:
        raise InvariantViolation(without_faults_webhooks_are_on_time, promise, late_ms, "ms")


def no_error_is_unhandled(error: Exception) -> NoReturn:
    """The code under test handles every error that it meets."""
    raise InvariantViolation(no_error_is_unhandled, repr(error)) from error
