"""The use cases of the API: set, cancel, purge and move."""

from __future__ import annotations

import pytest

from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.errors import (
    PurgeDisabled,
    TimerExpired,
    TimerInFlight,
    TimerNotFound,
    Unavailable,
)
from chalicelib.domain.moment import When
from chalicelib.domain.timer import Timer
from chalicelib.service.timers import PURGE_STEP, TimerRequest, Timers
from tests.support.clock import START, ManualClock
from tests.support.factories import claimed
from tests.support.stores import RecordingStore
from tests.support.wakeups import RecordingWakeups

TENANT = "default"
URL = "http://h/a"


def lease_end(timer: Timer) -> int:
    assert timer.lease
    return timer.lease.until


def test_a_timer_is_due_its_delay_after_it_was_accepted(
    timers: Timers,
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    assert timer.due_at == timer.next_attempt_at == START + 30_000
    assert timer.created_at == START


def test_a_fraction_of_a_millisecond_makes_a_timer_late_and_never_early(
    timers: Timers, clock: ManualClock
) -> None:
    clock.advance(0.25)
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    assert timer.due_at == START + 30_001
    assert timer.time_left(clock.now) == 30


def test_a_timer_counts_from_before_its_write_however_long_that_takes(
    timers: Timers, rows: RecordingStore
) -> None:
    rows.write_takes_ms = 700
    assert timers.set(TENANT, TimerRequest(url=URL, when=When(30_000))).due_at == START + 30_000


def test_cancelling_removes_the_timer_and_its_wakeup(
    timers: Timers, wakeups: RecordingWakeups
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    timers.cancel(TENANT, timer.id)
    with pytest.raises(TimerNotFound):
        timers.get(TENANT, timer.id)
    assert wakeups.forgotten == [timer.wakeup()]


def test_a_timer_in_flight_is_not_cancelled(
    timers: Timers, rows: RecordingStore, wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(1_000)))
    claimed(rows, timer)
    clock.advance(1_500)
    with pytest.raises(TimerInFlight):
        timers.cancel(TENANT, timer.id)
    assert timers.get(TENANT, timer.id).id == timer.id
    assert wakeups.forgotten == []


def test_a_timer_whose_sender_died_can_be_cancelled_once_its_lease_is_over(
    timers: Timers, rows: RecordingStore, clock: ManualClock
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(1_000)))
    clock.now = lease_end(claimed(rows, timer))
    timers.cancel(TENANT, timer.id)
    with pytest.raises(TimerNotFound):
        timers.get(TENANT, timer.id)


def test_an_unknown_timer_is_not_cancelled(timers: Timers) -> None:
    with pytest.raises(TimerNotFound):
        timers.cancel(TENANT, 1)


def test_purging_removes_every_timer_in_as_many_steps_as_it_takes(
    timers: Timers, rows: RecordingStore
) -> None:
    with rows.transaction():
        for _ in range(2 * PURGE_STEP + 1):
            timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    timers.purge(TENANT)
    assert timers.list(TENANT, before=None, status=None, limit=1).timers == []
    assert timers.set(TENANT, TimerRequest(url=URL, when=When(30_000))).id == 2 * PURGE_STEP + 2


def test_purging_an_empty_store_is_no_error(timers: Timers) -> None:
    timers.purge(TENANT)


def test_purging_leaves_the_timers_of_others(timers: Timers) -> None:
    kept = timers.set("other", TimerRequest(url=URL, when=When(30_000)))
    timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    timers.purge(TENANT)
    assert timers.get("other", kept.id) == kept


def test_a_disabled_purge_removes_nothing_and_names_the_setting(
    store: WakingTimerStore, rows: RecordingStore, clock: ManualClock
) -> None:
    timers = Timers(store, clock, allow_purge=False)
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    with pytest.raises(PurgeDisabled, match="TIMERS_ALLOW_PURGE"):
        timers.purge(TENANT)
    assert timers.get(TENANT, timer.id) == timer


def test_a_purge_that_runs_out_of_time_raises_and_continues_when_called_again(
    store: WakingTimerStore, rows: RecordingStore, clock: ManualClock
) -> None:
    timers = Timers(store, clock, budget_ms=0)
    with rows.transaction():
        for _ in range(PURGE_STEP + 1):
            timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    with pytest.raises(Unavailable, match="call again"):
        timers.purge(TENANT)
    left = timers.list(TENANT, before=None, status=None, limit=10)
    assert [timer.id for timer in left.timers] == [1]
    timers.purge(TENANT)
    assert timers.list(TENANT, before=None, status=None, limit=1).timers == []


# Moving


def test_a_moved_timer_is_due_its_delay_after_the_move(
    timers: Timers, wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    clock.advance(10_000)

    moved = timers.move(TENANT, timer.id, When(60_000))

    assert (moved.due_at, moved.next_attempt_at) == (START + 70_000, START + 70_000)
    assert moved.version == timer.version + 1
    assert moved.time_left(clock.now) == 60
    assert wakeups.registered == [timer.wakeup(), moved.wakeup()]
    assert wakeups.forgotten == [timer.wakeup()]


def test_an_expired_timer_is_not_moved(
    timers: Timers, rows: RecordingStore, clock: ManualClock
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    clock.advance(30_000)
    with pytest.raises(TimerExpired):
        timers.move(TENANT, timer.id, When(60_000))

    claimed(rows, timer)
    clock.now = START
    with pytest.raises(TimerExpired):
        timers.move(TENANT, timer.id, When(60_000))


def test_an_unknown_timer_is_not_moved(timers: Timers) -> None:
    with pytest.raises(TimerNotFound):
        timers.move(TENANT, 1, When(60_000))


def test_now_is_the_services_clock(timers: Timers, clock: ManualClock) -> None:
    clock.advance(1.5)
    assert timers.now == START + 1.5
