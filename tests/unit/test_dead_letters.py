"""Failed timers: replaying one or many."""

from __future__ import annotations

import pytest

from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.errors import TimerNotFailed, TimerNotFound
from chalicelib.domain.moment import When
from chalicelib.domain.selection import Selection
from chalicelib.domain.timer import Status, Timer
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.many_timers import Chosen, Done
from chalicelib.service.timers import TimerRequest, Timers
from tests.support.clock import START, ManualClock
from tests.support.factories import claimed, settlement_of
from tests.support.stores import RecordingStore
from tests.support.wakeups import RecordingWakeups

TENANT = "default"
URL = "http://h/a"


@pytest.fixture
def dead_letters(store: WakingTimerStore, timers: Timers, clock: ManualClock) -> DeadLetters:
    return DeadLetters(store, timers, clock, step=2)


def set_timer(timers: Timers, url: str = URL) -> Timer:
    return timers.set(TENANT, TimerRequest(url=url, when=When(30_000)))


def end(store: WakingTimerStore, timer: Timer, status: Status, at: int = START + 30_100) -> Timer:
    """Claim and settle a timer."""
    claimed(store, timer)
    assert store.settle(settlement_of(timer, now=at, status=status))
    return store.get(TENANT, timer.id)


@pytest.fixture
def failed(timers: Timers, store: WakingTimerStore) -> list[Timer]:
    """Return five timers that failed for good."""
    return [end(store, set_timer(timers), Status.FAILED) for _ in range(5)]


def pending(timers: Timers) -> list[int]:
    page = timers.list(TENANT, before=None, status=Status.PENDING, limit=10)
    return sorted(timer.id for timer in page.timers)


def test_a_replayed_timer_is_called_now_with_all_its_attempts_before_it(
    dead_letters: DeadLetters, failed: list[Timer], wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    clock.now = START + 90_000

    timer = dead_letters.replay(TENANT, 1)

    assert (timer.status, timer.attempts, timer.next_attempt_at) == (
        Status.PENDING,
        0,
        START + 90_000,
    )
    assert wakeups.registered[-1] == timer.wakeup()
    assert timer.log == failed[0].log


def test_a_replayed_timer_stays_expired(
    dead_letters: DeadLetters, failed: list[Timer], clock: ManualClock
) -> None:
    timer = dead_letters.replay(TENANT, 1)
    assert timer.due_at == failed[0].due_at
    assert timer.time_left(START) == 0


@pytest.mark.parametrize("status", [Status.PENDING, Status.FIRED])
def test_only_failed_timers_are_replayed(
    dead_letters: DeadLetters, timers: Timers, store: WakingTimerStore, status: Status
) -> None:
    timer = set_timer(timers)
    if status is Status.FIRED:
        timer = end(store, timer, status)
    with pytest.raises(TimerNotFailed, match=status.value):
        dead_letters.replay(TENANT, timer.id)
    assert store.get(TENANT, timer.id) == timer


def test_an_unknown_timer_is_not_replayed(dead_letters: DeadLetters) -> None:
    with pytest.raises(TimerNotFound):
        dead_letters.replay(TENANT, 1)


def test_a_dry_run_counts_timers_and_changes_nothing(
    dead_letters: DeadLetters, store: WakingTimerStore, failed: list[Timer]
) -> None:
    assert dead_letters.replay_all(TENANT, Chosen(), per_s=None) == Done(matching=5, changed=0)
    assert [store.get(TENANT, timer.id) for timer in failed] == failed


def test_all_failed_timers_are_called_one_after_the_other(
    dead_letters: DeadLetters, store: WakingTimerStore, failed: list[Timer], clock: ManualClock
) -> None:
    clock.now = START + 90_000

    outcome = dead_letters.replay_all(TENANT, Chosen(), per_s=4)

    assert outcome == Done(matching=5, changed=5)
    times = sorted(store.get(TENANT, timer.id).wakeup().at for timer in failed)
    assert [at - START - 90_000 for at in times] == [0, 250, 500, 750, 1_000]


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        (Chosen(), [1, 2, 3]),
        (Chosen(only=Selection(url_prefix="http://a/")), [1, 2]),
        (Chosen(only=Selection(failed_from=START + 40_000)), [2, 3]),
        (Chosen(only=Selection(failed_until=START + 40_000)), [1]),
        (Chosen(only=Selection(url_prefix="http://a/", failed_from=START + 40_000)), [2]),
        (Chosen(before=3), [1, 2]),
    ],
)
def test_only_matching_timers_are_replayed(
    dead_letters: DeadLetters,
    timers: Timers,
    store: WakingTimerStore,
    wanted: Chosen,
    matching: list[int],
) -> None:
    end(store, set_timer(timers, "http://a/x"), Status.FAILED, START + 39_999)
    end(store, set_timer(timers, "http://a/y"), Status.FAILED, START + 40_000)
    end(store, set_timer(timers, "http://b/x"), Status.FAILED, START + 50_000)

    assert dead_letters.replay_all(TENANT, wanted, per_s=None).matching == len(matching)
    assert dead_letters.replay_all(TENANT, wanted, per_s=100).changed == len(matching)
    assert pending(timers) == matching


@pytest.mark.usefixtures("failed")
@pytest.mark.parametrize("per_s", [None, 100.0])
def test_a_replay_that_runs_out_of_time_returns_where_to_continue(
    store: WakingTimerStore, timers: Timers, clock: ManualClock, per_s: float | None
) -> None:
    hasty = DeadLetters(store, timers, clock, step=2, budget_ms=0)

    first = hasty.replay_all(TENANT, Chosen(), per_s)
    second = hasty.replay_all(TENANT, Chosen(before=first.before), per_s)
    third = hasty.replay_all(TENANT, Chosen(before=second.before), per_s)

    assert [outcome.before for outcome in (first, second, third)] == [4, 2, None]
    assert [outcome.matching for outcome in (first, second, third)] == [2, 2, 1]
    assert pending(timers) == ([] if per_s is None else [1, 2, 3, 4, 5])


@pytest.mark.usefixtures("failed")
def test_a_timer_replayed_by_another_request_is_skipped(
    dead_letters: DeadLetters, store: WakingTimerStore, rows: RecordingStore
) -> None:
    def replay_first() -> None:
        rows.before_change = None
        dead_letters.replay(TENANT, 5)

    rows.before_change = replay_first

    outcome = dead_letters.replay_all(TENANT, Chosen(), per_s=100)

    assert outcome == Done(matching=5, changed=4)
    assert store.get(TENANT, 5).version == 2
