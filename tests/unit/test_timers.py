from __future__ import annotations

import pytest

from chalicelib.domain.errors import (
    PurgeDisabled,
    TimerExpired,
    TimerInFlight,
    TimerNotFound,
    Unavailable,
)
from chalicelib.domain.timer import Timer
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.ports import Claim
from chalicelib.service.timers import (
    PURGE_STEP,
    PUT_FIRST_MS,
    TimerRequest,
    Timers,
)
from tests.support.clock import START, HandClock
from tests.support.recording import FailingWaker, RecordingStore, RecordingWaker

TENANT = "default"
URL = "http://h/a"


@pytest.fixture
def without_wakeups(store: RecordingStore, clock: HandClock) -> Timers:
    return Timers(store, FailingWaker(store.log), clock)


def claim(store: SQLiteTimerStore, timer: Timer) -> Timer:
    claimed = store.claim(
        Claim(
            wakeup=timer.wakeup(),
            token="t",
            now=timer.due_at,
            lease_until=timer.due_at + 30_000,
        )
    )
    assert isinstance(claimed, Timer)
    return claimed


def test_a_timer_is_due_its_delay_after_the_moment_it_was_accepted(
    scheduling: Timers,
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    assert timer.due_at == timer.next_attempt_at == START + 30_000
    assert timer.created_at == START


def test_a_fraction_of_a_millisecond_makes_a_timer_late_and_never_early(
    scheduling: Timers, clock: HandClock
) -> None:
    clock.advance(0.25)
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    assert timer.due_at == START + 30_001
    assert timer.time_left(clock.now) == 30


def test_the_moment_of_acceptance_is_before_the_write_however_long_that_takes(
    scheduling: Timers, store: RecordingStore
) -> None:
    store.writing_takes_ms = 700
    assert scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000)).due_at == START + 30_000


@pytest.mark.parametrize("delay_ms", [PUT_FIRST_MS + 1, 30_000, 10 * 365 * 86_400_000])
def test_a_wakeup_is_registered_before_the_timer_is_stored(
    scheduling: Timers, store: RecordingStore, waker: RecordingWaker, delay_ms: int
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=delay_ms))
    assert store.log == ["wake", "put"]
    assert waker.registered == [timer.wakeup()]
    assert store.written[0].armed


@pytest.mark.parametrize("delay_ms", [0, 1_000, PUT_FIRST_MS])
def test_a_very_near_timer_is_stored_before_its_wakeup_is_registered(
    scheduling: Timers, store: RecordingStore, waker: RecordingWaker, delay_ms: int
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=delay_ms))
    assert store.log == ["put", "wake"]
    assert waker.registered == [timer.wakeup()]


def test_a_timer_is_woken_again_when_storing_it_outlasted_its_delay(
    scheduling: Timers, store: RecordingStore, waker: RecordingWaker
) -> None:
    store.writing_takes_ms = 30_000
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    assert store.log == ["wake", "put", "wake"]
    assert waker.registered == [timer.wakeup()] * 2


@pytest.mark.parametrize("delay_ms", [0, PUT_FIRST_MS, 30_000])
def test_a_wakeup_that_cannot_be_registered_leaves_the_timer_stored_and_unarmed(
    without_wakeups: Timers, store: RecordingStore, delay_ms: int
) -> None:
    timer = without_wakeups.set(TENANT, TimerRequest(url=URL, delay_ms=delay_ms))
    assert without_wakeups.get(TENANT, timer.id).next_attempt_at == START + delay_ms
    assert not store.written[0].armed


def test_cancelling_removes_the_timer_and_its_wakeup(
    scheduling: Timers, waker: RecordingWaker
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    scheduling.cancel(TENANT, timer.id)
    with pytest.raises(TimerNotFound):
        scheduling.get(TENANT, timer.id)
    assert waker.forgotten == [timer.wakeup()]


def test_a_timer_whose_webhook_is_on_the_wire_is_not_cancelled(
    scheduling: Timers, store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=1_000))
    claim(store, timer)
    clock.advance(1_500)
    with pytest.raises(TimerInFlight):
        scheduling.cancel(TENANT, timer.id)
    assert scheduling.get(TENANT, timer.id).id == timer.id
    assert waker.forgotten == []


def test_a_timer_whose_sender_died_can_be_cancelled_once_its_lease_is_over(
    scheduling: Timers, store: RecordingStore, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=1_000))
    clock.now = claim(store, timer).lease_until or 0
    scheduling.cancel(TENANT, timer.id)
    with pytest.raises(TimerNotFound):
        scheduling.get(TENANT, timer.id)


def test_an_unknown_timer_is_not_cancelled(scheduling: Timers) -> None:
    with pytest.raises(TimerNotFound):
        scheduling.cancel(TENANT, 1)


def test_purging_removes_every_timer_in_as_many_steps_as_it_takes(
    scheduling: Timers, store: RecordingStore
) -> None:
    with store.transaction():
        for _ in range(2 * PURGE_STEP + 1):
            scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    scheduling.purge(TENANT)
    assert scheduling.list(TENANT, before=None, status=None, limit=1).timers == []
    assert scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000)).id == 2 * PURGE_STEP + 2


def test_purging_an_empty_store_is_no_error(scheduling: Timers) -> None:
    scheduling.purge(TENANT)


def test_purging_leaves_the_timers_of_others(scheduling: Timers) -> None:
    kept = scheduling.set("other", TimerRequest(url=URL, delay_ms=30_000))
    scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    scheduling.purge(TENANT)
    assert scheduling.get("other", kept.id) == kept


def test_a_disabled_purge_removes_nothing_and_names_the_setting(
    store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    scheduling = Timers(store, waker, clock, allow_purge=False)
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    with pytest.raises(PurgeDisabled, match="TIMERS_ALLOW_PURGE"):
        scheduling.purge(TENANT)
    assert scheduling.get(TENANT, timer.id) == timer


def test_a_purge_that_runs_out_of_time_says_so_and_goes_on_when_called_again(
    store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    scheduling = Timers(store, waker, clock, budget_ms=0)
    with store.transaction():
        for _ in range(PURGE_STEP + 1):
            scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    with pytest.raises(Unavailable, match="call again"):
        scheduling.purge(TENANT)
    left = scheduling.list(TENANT, before=None, status=None, limit=10)
    assert [timer.id for timer in left.timers] == [1]
    scheduling.purge(TENANT)
    assert scheduling.list(TENANT, before=None, status=None, limit=1).timers == []


# Moving


def test_a_moved_timer_is_due_its_delay_after_this_moment(
    scheduling: Timers, waker: RecordingWaker, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    clock.advance(10_000)

    moved = scheduling.move(TENANT, timer.id, 60_000)

    assert (moved.due_at, moved.next_attempt_at) == (START + 70_000, START + 70_000)
    assert moved.version == timer.version + 1
    assert moved.time_left(clock.now) == 60
    assert waker.registered == [timer.wakeup(), moved.wakeup()]
    assert waker.forgotten == [timer.wakeup()]


@pytest.mark.parametrize("delay_ms", [0, PUT_FIRST_MS])
def test_a_wakeup_that_could_overtake_the_move_is_registered_after_it(
    scheduling: Timers, store: RecordingStore, delay_ms: int
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    store.log.clear()
    scheduling.move(TENANT, timer.id, delay_ms)
    assert store.log == ["put", "wake"]


def test_a_move_whose_write_outlasts_its_delay_is_woken_again(
    scheduling: Timers, store: RecordingStore
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    store.log.clear()
    store.writing_takes_ms = 5_000
    scheduling.move(TENANT, timer.id, 5_000)
    assert store.log == ["wake", "put", "wake"]


def test_a_move_whose_wakeup_cannot_be_registered_is_left_to_the_sweep(
    without_wakeups: Timers, store: RecordingStore
) -> None:
    timer = without_wakeups.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    without_wakeups.move(TENANT, timer.id, 60_000)
    assert store.changes[-1].armed is False


def test_a_timer_whose_time_has_come_is_not_moved(
    scheduling: Timers, store: RecordingStore, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, TimerRequest(url=URL, delay_ms=30_000))
    clock.advance(30_000)
    with pytest.raises(TimerExpired):
        scheduling.move(TENANT, timer.id, 60_000)

    claim(store, timer)
    clock.now = START
    with pytest.raises(TimerExpired):
        scheduling.move(TENANT, timer.id, 60_000)


def test_a_timer_that_never_was_is_not_moved(scheduling: Timers) -> None:
    with pytest.raises(TimerNotFound):
        scheduling.move(TENANT, 1, 60_000)


def test_now_is_the_services_clock(scheduling: Timers, clock: HandClock) -> None:
    clock.advance(1.5)
    assert scheduling.now == START + 1.5
