"""Batches on AWS when wake-ups cannot be registered, come too late, or are refused in part."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.timer import NewTimer, Timer, Wakeup
from chalicelib.service.ports import Metric
from tests.support.clock import START, ManualClock
from tests.support.factories import TENANT, new_timer
from tests.support.stores import FakeArmableStore
from tests.support.wakeups import RecordingWakeups


class PartlyRefusing(RecordingWakeups):
    """Accepts every other wake-up of a batch."""

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        return super().wake_all(wakeups[::2])


class FarWakeups(RecordingWakeups):
    """Takes every wake-up for a far one."""

    def is_near(self, _wakeup: Wakeup) -> bool:
        return False

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        raise AssertionError(wakeups)


class SlowStore(FakeArmableStore):
    """Takes a second of the clock for each row, and cannot write some."""

    def __init__(self, clock: ManualClock, *, takes_ms: float = 0, broken: int = 0) -> None:
        super().__init__()
        self._clock = clock
        self._takes_ms = takes_ms
        self._broken = broken

    def put(self, timer: Timer, *, armed: bool) -> None:
        self._clock.advance(self._takes_ms)
        if timer.id == self._broken:
            raise Unavailable("The table is down.")
        super().put(timer, armed=armed)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def news(count: int, delay_ms: int = 60_000) -> list[NewTimer]:
    return [new_timer(created_at=START, due_at=START + delay_ms) for _ in range(count)]


def set_all(
    rows: FakeArmableStore, wakeups: RecordingWakeups, clock: ManualClock, wanted: list[NewTimer]
) -> tuple[list[int | None], list[float]]:
    """Set a batch; return the ids, None for a refused timer, and the count of unarmed ones."""
    unarmed: list[float] = []

    def meter(metric: Metric, value: float) -> None:
        assert metric is Metric.UNARMED
        unarmed.append(value)

    store = WakingTimerStore(rows, wakeups, clock, meter)
    results = store.create_many(wanted)
    return [done.timer_id if isinstance(done, SetOnce) else None for done in results], unarmed


def woken(wakeups: RecordingWakeups) -> list[int]:
    return sorted(wakeup.id for wakeup in wakeups.registered)


def armed(rows: FakeArmableStore) -> list[int]:
    return sorted(timer_id for (_, timer_id), is_armed in rows.armed.items() if is_armed)


def test_wakeups_are_registered_before_the_rows(clock: ManualClock) -> None:
    rows, wakeups = FakeArmableStore(), RecordingWakeups()
    ids, unarmed = set_all(rows, wakeups, clock, news(25))
    assert ids == woken(wakeups) == armed(rows) == list(range(1, 26))
    assert unarmed == []


def test_what_the_queue_refuses_is_left_to_the_sweeper(clock: ManualClock) -> None:
    rows, wakeups = FakeArmableStore(), PartlyRefusing()
    ids, unarmed = set_all(rows, wakeups, clock, news(10))
    assert ids == list(range(1, 11))
    assert armed(rows) == woken(wakeups) == [1, 3, 5, 7, 9]
    assert sum(unarmed) == 5


@pytest.mark.parametrize("kind", [RecordingWakeups, FarWakeups])
def test_without_a_queue_every_timer_is_stored_and_unarmed(
    clock: ManualClock, kind: type[RecordingWakeups]
) -> None:
    rows, wakeups = FakeArmableStore(), kind()
    wakeups.broken = True
    ids, unarmed = set_all(rows, wakeups, clock, news(12))
    assert ids == list(range(1, 13))
    assert armed(rows) == []
    assert sum(unarmed) == 12


def test_far_timers_have_a_schedule_each(clock: ManualClock) -> None:
    rows, wakeups = FakeArmableStore(), FarWakeups()
    set_all(rows, wakeups, clock, news(3))
    assert woken(wakeups) == armed(rows) == [1, 2, 3]


def test_timers_due_at_once_are_stored_before_they_are_woken(clock: ManualClock) -> None:
    rows, wakeups = FakeArmableStore(), RecordingWakeups()
    set_all(rows, wakeups, clock, news(3, delay_ms=1_000))
    assert woken(wakeups) == [1, 2, 3]
    assert armed(rows) == [], "the sweeper finds them if nobody has woken them"


def test_a_timer_that_was_due_before_its_row_is_woken_again(clock: ManualClock) -> None:
    rows, wakeups = SlowStore(clock, takes_ms=2_000), RecordingWakeups()
    set_all(rows, wakeups, clock, news(2, delay_ms=3_000))
    assert woken(wakeups) == [1, 1, 2, 2]


def test_a_row_that_cannot_be_written_is_refused_alone_and_not_woken_again(
    clock: ManualClock,
) -> None:
    rows, wakeups = SlowStore(clock, broken=2), RecordingWakeups()
    ids, _ = set_all(rows, wakeups, clock, news(3, delay_ms=1_000))
    assert ids == [1, None, 3]
    assert woken(wakeups) == [1, 3]
    assert [timer.id for timer in rows.find_many(TENANT, [1, 2, 3])] == [1, 3]
