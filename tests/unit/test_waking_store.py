"""The order in which rows are written and their wake-ups registered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.aws.batch_creates import WRITE_FIRST_MS
from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.claim import Settlement
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.moment import When
from chalicelib.domain.timer import Status
from chalicelib.service.timers import TimerRequest, Timers
from tests.support.clock import START, ManualClock
from tests.support.factories import DUE, claimed, set_timer, settlement_of
from tests.support.stores import RecordingStore
from tests.support.wakeups import RecordingWakeups

TENANT = "default"
URL = "http://h/a"


@pytest.mark.parametrize("delay_ms", [WRITE_FIRST_MS + 1, 30_000, 10 * 365 * 86_400_000])
def test_a_wakeup_is_registered_before_the_timer_is_stored(
    timers: Timers, rows: RecordingStore, wakeups: RecordingWakeups, delay_ms: int
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(delay_ms)))
    assert rows.log == ["wake", "put"]
    assert wakeups.registered == [timer.wakeup()]
    assert rows.written[0].armed


@pytest.mark.parametrize("delay_ms", [0, 1_000, WRITE_FIRST_MS])
def test_a_very_near_timer_is_stored_before_its_wakeup_is_registered(
    timers: Timers, rows: RecordingStore, wakeups: RecordingWakeups, delay_ms: int
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(delay_ms)))
    assert rows.log == ["put", "wake"]
    assert wakeups.registered == [timer.wakeup()]


def test_a_timer_is_woken_again_when_storing_it_outlasted_its_delay(
    timers: Timers, rows: RecordingStore, wakeups: RecordingWakeups
) -> None:
    rows.write_takes_ms = 30_000
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    assert rows.log == ["wake", "put", "wake"]
    assert wakeups.registered == [timer.wakeup()] * 2


@pytest.mark.parametrize("delay_ms", [0, WRITE_FIRST_MS, 30_000])
def test_a_wakeup_that_cannot_be_registered_leaves_the_timer_stored_and_unarmed(
    timers: Timers, rows: RecordingStore, wakeups: RecordingWakeups, delay_ms: int
) -> None:
    wakeups.broken = True
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(delay_ms)))
    assert timers.get(TENANT, timer.id).next_attempt_at == START + delay_ms
    assert not rows.written[0].armed


@pytest.mark.parametrize("delay_ms", [0, WRITE_FIRST_MS])
def test_a_wakeup_that_could_overtake_its_move_is_registered_after_it(
    timers: Timers, rows: RecordingStore, delay_ms: int
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    rows.log.clear()
    timers.move(TENANT, timer.id, When(delay_ms))
    assert rows.log == ["put", "wake"]


def test_a_move_whose_write_outlasts_its_delay_is_woken_again(
    timers: Timers, rows: RecordingStore
) -> None:
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    rows.log.clear()
    rows.write_takes_ms = 5_000
    timers.move(TENANT, timer.id, When(5_000))
    assert rows.log == ["wake", "put", "wake"]


def test_a_move_whose_wakeup_cannot_be_registered_is_left_to_the_sweep(
    timers: Timers, rows: RecordingStore, wakeups: RecordingWakeups
) -> None:
    wakeups.broken = True
    timer = timers.set(TENANT, TimerRequest(url=URL, when=When(30_000)))
    timers.move(TENANT, timer.id, When(60_000))
    assert rows.written[-1].armed is False


class LosingStore(RecordingStore):
    """Carries out a settlement, and loses the response."""

    def settle(self, settlement: Settlement, *, armed: bool = False) -> bool:
        assert super().settle(settlement, armed=armed)
        raise Unavailable("The response is lost.")


@pytest.mark.parametrize("delay_ms", [1_000, WRITE_FIRST_MS])
def test_a_call_that_is_wanted_again_soon_is_woken_even_if_the_settlement_s_response_is_lost(
    clock: ManualClock, wakeups: RecordingWakeups, delay_ms: int
) -> None:
    rows = LosingStore(clock)
    store = WakingTimerStore(rows, wakeups, clock)
    timer = claimed(store, set_timer(store))
    clock.now = DUE
    wakeups.registered.clear()
    again = replace(
        settlement_of(timer, now=DUE, status=Status.PENDING),
        next_attempt_at=DUE + delay_ms,
        repeat=True,
    )
    with pytest.raises(Unavailable):
        store.settle(again)
    (wakeup,) = wakeups.registered
    assert (wakeup.at, wakeup.version) == (DUE + delay_ms, timer.version + 1)
