from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.errors import (
    PurgeDisabled,
    TimerExpired,
    TimerInFlight,
    TimerNotFailed,
    TimerNotFound,
    Unavailable,
)
from chalicelib.ports import Arm, Claim, Reschedule
from chalicelib.scheduling import (
    PURGE_STEP,
    PUT_FIRST_MS,
    FailedTimers,
    Order,
    Replayed,
    Scheduling,
)
from chalicelib.timer import NewTimer, Status, Timer, Wakeup
from tests.clock import START, HandClock
from tests.factories import settlement_of

TENANT = "default"
URL = "http://h/a"


class RecordingStore(SQLiteTimerStore):
    """A store that remembers how each timer was written, in a log shared with the waker."""

    log: list[str]
    written: list[Timer]
    changes: list[Reschedule]
    before_change: Callable[[], object] | None = None
    writing_takes_ms = 0.0
    clock: HandClock

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        timer = super().create(new, arm)
        self.clock.advance(self.writing_takes_ms)
        self.log.append("put")
        self.written.append(timer)
        return timer

    def reschedule(self, change: Reschedule) -> Timer:
        if self.before_change:
            self.before_change()
        timer = super().reschedule(change)
        self.clock.advance(self.writing_takes_ms)
        self.log.append("put")
        self.changes.append(change)
        return timer


class RecordingWaker:
    """A waker that remembers what it was asked for."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.registered: list[Wakeup] = []
        self.forgotten: list[Wakeup] = []

    def wake_at(self, wakeup: Wakeup) -> None:
        self.log.append("wake")
        self.registered.append(wakeup)

    def forget(self, wakeup: Wakeup) -> None:
        self.forgotten.append(wakeup)


class FailingWaker(RecordingWaker):
    """A waker that cannot register anything."""

    def wake_at(self, wakeup: Wakeup) -> None:
        super().wake_at(wakeup)
        raise Unavailable("The queue is down.")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(clock: HandClock) -> Iterator[RecordingStore]:
    store = RecordingStore.in_memory()
    assert isinstance(store, RecordingStore)
    store.log, store.written, store.changes, store.clock = [], [], [], clock
    yield store
    store.close()


@pytest.fixture
def waker(store: RecordingStore) -> RecordingWaker:
    return RecordingWaker(store.log)


@pytest.fixture
def scheduling(store: RecordingStore, waker: RecordingWaker, clock: HandClock) -> Scheduling:
    return Scheduling(store, waker, clock)


@pytest.fixture
def without_wakeups(store: RecordingStore, clock: HandClock) -> Scheduling:
    return Scheduling(store, FailingWaker(store.log), clock)


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
    scheduling: Scheduling,
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    assert timer.due_at == timer.next_attempt_at == START + 30_000
    assert timer.created_at == START


def test_a_fraction_of_a_millisecond_makes_a_timer_late_and_never_early(
    scheduling: Scheduling, clock: HandClock
) -> None:
    clock.advance(0.25)
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    assert timer.due_at == START + 30_001
    assert timer.time_left(clock.now) == 30


def test_the_moment_of_acceptance_is_before_the_write_however_long_that_takes(
    scheduling: Scheduling, store: RecordingStore
) -> None:
    store.writing_takes_ms = 700
    assert scheduling.set(TENANT, Order(url=URL, delay_ms=30_000)).due_at == START + 30_000


@pytest.mark.parametrize("delay_ms", [PUT_FIRST_MS + 1, 30_000, 10 * 365 * 86_400_000])
def test_a_wakeup_is_registered_before_the_timer_is_stored(
    scheduling: Scheduling, store: RecordingStore, waker: RecordingWaker, delay_ms: int
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=delay_ms))
    assert store.log == ["wake", "put"]
    assert waker.registered == [timer.wakeup()]
    assert store.written[0].armed


@pytest.mark.parametrize("delay_ms", [0, 1_000, PUT_FIRST_MS])
def test_a_very_near_timer_is_stored_before_its_wakeup_is_registered(
    scheduling: Scheduling, store: RecordingStore, waker: RecordingWaker, delay_ms: int
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=delay_ms))
    assert store.log == ["put", "wake"]
    assert waker.registered == [timer.wakeup()]


def test_a_timer_is_woken_again_when_storing_it_outlasted_its_delay(
    scheduling: Scheduling, store: RecordingStore, waker: RecordingWaker
) -> None:
    store.writing_takes_ms = 30_000
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    assert store.log == ["wake", "put", "wake"]
    assert waker.registered == [timer.wakeup()] * 2


@pytest.mark.parametrize("delay_ms", [0, PUT_FIRST_MS, 30_000])
def test_a_wakeup_that_cannot_be_registered_leaves_the_timer_stored_and_unarmed(
    without_wakeups: Scheduling, store: RecordingStore, delay_ms: int
) -> None:
    timer = without_wakeups.set(TENANT, Order(url=URL, delay_ms=delay_ms))
    assert without_wakeups.get(TENANT, timer.id).next_attempt_at == START + delay_ms
    assert not store.written[0].armed


def test_cancelling_removes_the_timer_and_its_wakeup(
    scheduling: Scheduling, waker: RecordingWaker
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    scheduling.cancel(TENANT, timer.id)
    with pytest.raises(TimerNotFound):
        scheduling.get(TENANT, timer.id)
    assert waker.forgotten == [timer.wakeup()]


def test_a_timer_whose_webhook_is_on_the_wire_is_not_cancelled(
    scheduling: Scheduling, store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=1_000))
    claim(store, timer)
    clock.advance(1_500)
    with pytest.raises(TimerInFlight):
        scheduling.cancel(TENANT, timer.id)
    assert scheduling.get(TENANT, timer.id).id == timer.id
    assert waker.forgotten == []


def test_a_timer_whose_sender_died_can_be_cancelled_once_its_lease_is_over(
    scheduling: Scheduling, store: RecordingStore, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=1_000))
    clock.now = claim(store, timer).lease_until or 0
    scheduling.cancel(TENANT, timer.id)
    with pytest.raises(TimerNotFound):
        scheduling.get(TENANT, timer.id)


def test_an_unknown_timer_is_not_cancelled(scheduling: Scheduling) -> None:
    with pytest.raises(TimerNotFound):
        scheduling.cancel(TENANT, 1)


def test_purging_removes_every_timer_in_as_many_steps_as_it_takes(
    scheduling: Scheduling, store: RecordingStore
) -> None:
    with store.transaction():
        for _ in range(2 * PURGE_STEP + 1):
            scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    scheduling.purge(TENANT)
    assert scheduling.list(TENANT, before=None, status=None, limit=1).timers == []
    assert scheduling.set(TENANT, Order(url=URL, delay_ms=30_000)).id == 2 * PURGE_STEP + 2


def test_purging_an_empty_store_is_no_error(scheduling: Scheduling) -> None:
    scheduling.purge(TENANT)


def test_purging_leaves_the_timers_of_others(scheduling: Scheduling) -> None:
    kept = scheduling.set("other", Order(url=URL, delay_ms=30_000))
    scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    scheduling.purge(TENANT)
    assert scheduling.get("other", kept.id) == kept


def test_a_disabled_purge_removes_nothing_and_names_the_setting(
    store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    scheduling = Scheduling(store, waker, clock, allow_purge=False)
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    with pytest.raises(PurgeDisabled, match="TIMERS_ALLOW_PURGE"):
        scheduling.purge(TENANT)
    assert scheduling.get(TENANT, timer.id) == timer


def test_a_purge_that_runs_out_of_time_says_so_and_goes_on_when_called_again(
    store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    scheduling = Scheduling(store, waker, clock, budget_ms=0)
    with store.transaction():
        for _ in range(PURGE_STEP + 1):
            scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    with pytest.raises(Unavailable, match="call again"):
        scheduling.purge(TENANT)
    left = scheduling.list(TENANT, before=None, status=None, limit=10)
    assert [timer.id for timer in left.timers] == [1]
    scheduling.purge(TENANT)
    assert scheduling.list(TENANT, before=None, status=None, limit=1).timers == []


# Moving


def test_a_moved_timer_is_due_its_delay_after_this_moment(
    scheduling: Scheduling, waker: RecordingWaker, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    clock.advance(10_000)

    moved = scheduling.move(TENANT, timer.id, 60_000)

    assert (moved.due_at, moved.next_attempt_at) == (START + 70_000, START + 70_000)
    assert moved.version == timer.version + 1
    assert moved.time_left(clock.now) == 60
    assert waker.registered == [timer.wakeup(), moved.wakeup()]
    assert waker.forgotten == [timer.wakeup()]


@pytest.mark.parametrize("delay_ms", [0, PUT_FIRST_MS])
def test_a_wakeup_that_could_overtake_the_move_is_registered_after_it(
    scheduling: Scheduling, store: RecordingStore, delay_ms: int
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    store.log.clear()
    scheduling.move(TENANT, timer.id, delay_ms)
    assert store.log == ["put", "wake"]


def test_a_move_whose_write_outlasts_its_delay_is_woken_again(
    scheduling: Scheduling, store: RecordingStore
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    store.log.clear()
    store.writing_takes_ms = 5_000
    scheduling.move(TENANT, timer.id, 5_000)
    assert store.log == ["wake", "put", "wake"]


def test_a_move_whose_wakeup_cannot_be_registered_is_left_to_the_sweep(
    without_wakeups: Scheduling, store: RecordingStore
) -> None:
    timer = without_wakeups.set(TENANT, Order(url=URL, delay_ms=30_000))
    without_wakeups.move(TENANT, timer.id, 60_000)
    assert store.changes[-1].armed is False


def test_a_timer_whose_time_has_come_is_not_moved(
    scheduling: Scheduling, store: RecordingStore, clock: HandClock
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    clock.advance(30_000)
    with pytest.raises(TimerExpired):
        scheduling.move(TENANT, timer.id, 60_000)

    claim(store, timer)
    clock.now = START
    with pytest.raises(TimerExpired):
        scheduling.move(TENANT, timer.id, 60_000)


def test_a_timer_that_never_was_is_not_moved(scheduling: Scheduling) -> None:
    with pytest.raises(TimerNotFound):
        scheduling.move(TENANT, 1, 60_000)


# Replaying


def failed_timer(
    scheduling: Scheduling, store: RecordingStore, url: str = URL, failed_at: int = START + 30_100
) -> Timer:
    timer = scheduling.set(TENANT, Order(url=url, delay_ms=30_000))
    claim(store, timer)
    store.settle(settlement_of(timer, "t", now=failed_at, status=Status.FAILED))
    return store.get(TENANT, timer.id)


def test_a_replayed_timer_is_called_now_with_all_its_attempts_before_it(
    scheduling: Scheduling, store: RecordingStore, waker: RecordingWaker, clock: HandClock
) -> None:
    failed = failed_timer(scheduling, store)
    clock.now = START + 90_000

    timer = scheduling.replay(TENANT, failed.id)

    assert (timer.status, timer.attempts) == (Status.PENDING, 0)
    assert timer.next_attempt_at == START + 90_000
    assert waker.registered[-1] == timer.wakeup()
    assert timer.log == failed.log
    assert (timer.due_at, timer.time_left(clock.now), timer.time_left(START)) == (
        failed.due_at,
        0,
        0,
    )


@pytest.mark.parametrize("status", [Status.PENDING, Status.FIRED])
def test_only_what_failed_is_replayed(
    scheduling: Scheduling, store: RecordingStore, status: Status
) -> None:
    timer = scheduling.set(TENANT, Order(url=URL, delay_ms=30_000))
    if status is Status.FIRED:
        claim(store, timer)
        store.settle(settlement_of(timer, "t"))
    before = store.get(TENANT, timer.id)
    with pytest.raises(TimerNotFailed, match=status.value):
        scheduling.replay(TENANT, timer.id)
    assert store.get(TENANT, timer.id) == before


def test_counting_what_would_be_replayed_changes_nothing(
    scheduling: Scheduling, store: RecordingStore
) -> None:
    failed = [failed_timer(scheduling, store) for _ in range(3)]

    outcome = scheduling.replay_all(TENANT, FailedTimers(), dry_run=True)

    assert outcome == Replayed(matching=3, replayed=0, more=False)
    assert [store.get(TENANT, timer.id) for timer in failed] == failed


def test_all_that_failed_are_replayed_over_all_pages(
    scheduling: Scheduling, store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.scheduling.REPLAY_STEP", 2)
    failed = [failed_timer(scheduling, store) for _ in range(5)]

    outcome = scheduling.replay_all(TENANT, FailedTimers(), dry_run=False)

    assert outcome == Replayed(matching=5, replayed=5, more=False)
    assert {store.get(TENANT, timer.id).status for timer in failed} == {Status.PENDING}


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        (FailedTimers(), [1, 2, 3]),
        (FailedTimers(url_prefix="http://a/"), [1, 2]),
        (FailedTimers(failed_from=START + 40_000), [2, 3]),
        (FailedTimers(failed_until=START + 40_000), [1]),
        (FailedTimers(url_prefix="http://a/", failed_from=START + 40_000), [2]),
    ],
)
def test_only_what_is_meant_is_replayed(
    scheduling: Scheduling, store: RecordingStore, wanted: FailedTimers, matching: list[int]
) -> None:
    failed_timer(scheduling, store, "http://a/x", START + 39_999)
    failed_timer(scheduling, store, "http://a/y", START + 40_000)
    failed_timer(scheduling, store, "http://b/x", START + 50_000)

    assert scheduling.replay_all(TENANT, wanted, dry_run=True).matching == len(matching)
    assert scheduling.replay_all(TENANT, wanted, dry_run=False).replayed == len(matching)

    page = scheduling.list(TENANT, before=None, status=Status.PENDING, limit=10)
    assert sorted(timer.id for timer in page.timers) == matching


def test_a_replay_that_runs_out_of_time_says_so_and_goes_on_when_called_again(
    store: RecordingStore,
    waker: RecordingWaker,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chalicelib.scheduling.REPLAY_STEP", 2)
    scheduling = Scheduling(store, waker, clock, budget_ms=0)
    for _ in range(3):
        failed_timer(scheduling, store)

    first = scheduling.replay_all(TENANT, FailedTimers(), dry_run=False)
    second = scheduling.replay_all(TENANT, FailedTimers(), dry_run=False)

    assert first == Replayed(matching=2, replayed=2, more=True)
    assert second == Replayed(matching=1, replayed=1, more=False)


def test_what_another_has_replayed_meanwhile_is_passed_over(
    scheduling: Scheduling, store: RecordingStore
) -> None:
    failed_timer(scheduling, store)

    def replay_first() -> None:
        store.before_change = None
        scheduling.replay(TENANT, 1)

    store.before_change = replay_first

    outcome = scheduling.replay_all(TENANT, FailedTimers(), dry_run=False)

    assert outcome == Replayed(matching=1, replayed=0, more=False)
    assert store.get(TENANT, 1).version == 2


def test_now_is_the_services_clock(scheduling: Scheduling, clock: HandClock) -> None:
    clock.advance(1.5)
    assert scheduling.now == START + 1.5
