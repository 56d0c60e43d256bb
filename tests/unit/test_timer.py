"""A timer: its time left, its wake-up and its lease."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.timer import Lease, NewTimer, Status, Timer, Wakeup

CREATED = 1_800_000_000_000
DUE = CREATED + 30_000

FRESH = Timer.first(
    NewTimer(tenant="default", url="http://h", created_at=CREATED, due_at=DUE), timer_id=3
)


def test_a_new_timer_is_outstanding_and_due_for_its_first_attempt() -> None:
    assert FRESH.status is Status.PENDING
    assert FRESH.next_attempt_at == FRESH.due_at == DUE
    assert (FRESH.version, FRESH.attempts) == (1, 0)
    assert FRESH.lease is None
    assert FRESH.settled_at is None


@pytest.mark.parametrize(
    ("before_due_ms", "seconds"),
    [
        (30_000, 30),
        (29_999, 30),
        (29_001, 30),
        (29_000, 29),
        (1_001, 2),
        (1_000, 1),
        (999, 1),
        (1, 1),
        (0.5, 1),
        (0.001, 1),
        (0, 0),
        (-0.5, 0),
        (-1, 0),
        (-10_000_000, 0),
    ],
)
def test_time_left_is_rounded_up_and_0_only_when_expired(
    before_due_ms: float, seconds: int
) -> None:
    assert FRESH.time_left(DUE - before_due_ms) == seconds


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.25, 0.999])
def test_a_fraction_of_a_millisecond_adds_no_second_to_the_time_left(fraction: float) -> None:
    accepted = CREATED - 1 + fraction if fraction else float(CREATED)
    assert FRESH.time_left(accepted) == 30


def test_time_left_is_a_whole_number() -> None:
    assert type(FRESH.time_left(DUE - 1234.5)) is int
    assert type(FRESH.time_left(DUE + 0.5)) is int


def test_a_timer_set_before_the_clock_was_put_back_shows_more_than_its_delay() -> None:
    assert FRESH.time_left(CREATED - 10_000) == 40


@pytest.mark.parametrize(
    "timer",
    [
        replace(FRESH, status=Status.FIRED, next_attempt_at=None),
        replace(FRESH, status=Status.FAILED, next_attempt_at=None),
        replace(FRESH, attempts=1, next_attempt_at=DUE + 60_000),
        replace(FRESH, lease=Lease(token="t", until=DUE + 30_000)),
    ],
    ids=["fired", "failed", "waiting for a retry", "in flight"],
)
@pytest.mark.parametrize("now", [CREATED, DUE - 1, DUE, DUE + 5_000])
def test_a_timer_that_expired_shows_0_for_ever_whatever_the_clock_says(
    timer: Timer, now: int
) -> None:
    assert timer.time_left(now) == 0


def test_a_wakeup_has_the_version_and_time_of_the_next_attempt() -> None:
    retried = replace(FRESH, version=4, next_attempt_at=DUE + 1)
    assert retried.wakeup() == Wakeup(tenant="default", id=3, version=4, at=DUE + 1)


def test_nothing_wakes_a_settled_timer() -> None:
    with pytest.raises(ValueError, match="settled"):
        replace(FRESH, status=Status.FIRED, next_attempt_at=None).wakeup()


def test_a_lease_holds_until_its_end_and_no_longer() -> None:
    held = replace(FRESH, lease=Lease(token="t", until=DUE))
    assert held.leased(DUE - 1)
    assert not held.leased(DUE)
    assert not FRESH.leased(DUE)
