"""Whatever fails or dies on AWS, every timer is called, and within a known time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest

from chalicelib.aws import message
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.moment import When
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome
from chalicelib.service.ports import unmetered
from chalicelib.service.timers import TimerRequest
from tests.support.clock import START, ManualClock
from tests.support.factories import LEASE_MS, TENANT, URL
from tests.support.moto_stage import MotoStage
from tests.support.sender import OK, FakeSender

SWEEP_MS = 60_000
RUNNING_MS = 2 * 60_000
FAR_S = 960
REFUSED = Outcome(status=503)


class ProcessDied(BaseException):
    """Ends a process: no code of ours catches it."""


class RunningStage:
    """A stage over time: its queue, its schedules, and its sweeper every minute.

    A process that dies is started again: the consumer of the queue with the next receive of its
    message, the sweeper a minute later.
    """

    def __init__(self, stage: MotoStage, clock: ManualClock, *outcomes: Outcome) -> None:
        self._stage = stage
        self._clock = clock
        self.sender = FakeSender(clock, *outcomes)
        self._next_sweep = clock.now + SWEEP_MS / 3

    def until(self, end: float) -> None:
        """Move the clock from event to event, up to ``end``."""
        while self._clock.now < end:
            self._fire_schedules()
            self._consume()
            if self._clock.now >= self._next_sweep:
                self._next_sweep += SWEEP_MS
                self._completes(lambda: self._stage.sweeper().sweep())
            following = min(self._next_sweep, self._stage.next_message_at())
            self._clock.now = max(self._clock.now, following)

    def _consume(self) -> None:
        while messages := self._stage.receive():
            bodies = [each["Body"] for each in messages]
            wakeups = message.decode_all(bodies, unmetered)
            # One by one: in threads, the order of the calls would be random.
            for wakeup, each in zip(wakeups, messages, strict=True):
                delivery = self._stage.delivery(self.sender)
                if self._completes(lambda d=delivery, w=wakeup: d.deliver(w)):  # type: ignore[misc]
                    self._stage.delete([each])

    def _fire_schedules(self) -> None:
        for schedule in self._stage.schedules():
            wakeup = message.read(json.loads(schedule["Target"]["Input"]))
            if self._clock.now >= wakeup.at - 5 * 60_000:
                delivery = self._stage.delivery(self.sender)
                self._completes(lambda d=delivery, w=wakeup: d.deliver(w))  # type: ignore[misc]
                self._stage.unschedule(schedule["Name"])

    @staticmethod
    def _completes(work: Callable[[], object]) -> bool:
        """Do some work; return whether it was completed."""
        try:
            work()
        except (Unavailable, ProcessDied):
            return False
        return True


def sending_times(sender: FakeSender) -> list[float]:
    return [sent.at for sent in sender.sent]


def statuses(stage: MotoStage, timers: Iterable[Timer]) -> set[Status]:
    return {stage.store.get(TENANT, timer.id).status for timer in timers}


@pytest.mark.parametrize("seconds", [0, 1, 3, 90])
@pytest.mark.parametrize("outcomes", [(OK,), (REFUSED, OK)], ids=["delivered", "tried again"])
def test_timers_fire_at_most_one_sweep_late_if_no_wakeup_can_be_registered(
    stage: MotoStage, clock: ManualClock, seconds: int, outcomes: tuple[Outcome, ...]
) -> None:
    stage.fail("SendMessage", "CreateSchedule")  # the sweeper sends in batches
    timer = stage.timers().set(TENANT, TimerRequest(url=URL, when=When(seconds * 1000)))
    running = RunningStage(stage, clock, *outcomes)

    running.until(START + RUNNING_MS + seconds * 1000)

    due = [timer.due_at]
    if len(outcomes) > 1:
        due.append(int(sending_times(running.sender)[0]) + 5_000)
    late = [at - due_at for at, due_at in zip(sending_times(running.sender), due, strict=True)]
    assert all(0 <= each <= SWEEP_MS for each in late), late
    assert statuses(stage, [timer]) == {Status.FIRED}


def test_a_far_timer_fires_on_time_if_no_schedule_can_be_made(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.fail("CreateSchedule")
    timer = stage.timers().set(TENANT, TimerRequest(url=URL, when=When(FAR_S * 1000)))
    running = RunningStage(stage, clock)

    running.until(timer.due_at + SWEEP_MS)

    assert sending_times(running.sender) == [timer.due_at]


def dying_at(stage: MotoStage, number: int) -> Callable[[str], None]:
    """Die before the ``number``-th call to AWS, once; all before it were made."""
    left = iter(range(number))

    def die(_operation: str) -> None:
        if next(left, None) is None:
            stage.heal()
            raise ProcessDied

    return die


def failing_at(stage: MotoStage, number: int) -> Callable[[str], None]:
    """Fail the ``number``-th call to AWS, once."""
    die = dying_at(stage, number)

    def fail(operation: str) -> None:
        try:
            die(operation)
        except ProcessDied:
            raise Unavailable("It is away.") from None

    return fail


MOST_CALLS = 10


@pytest.mark.parametrize("number", range(MOST_CALLS))
@pytest.mark.parametrize("trouble", [dying_at, failing_at], ids=["death", "failure"])
@pytest.mark.parametrize("outcomes", [(OK,), (REFUSED, OK)], ids=["delivered", "tried again"])
def test_a_fault_at_any_call_of_a_delivery_costs_at_most_a_lease_and_a_sweep(
    stage: MotoStage,
    clock: ManualClock,
    *,
    number: int,
    trouble: Callable[[MotoStage, int], Callable[[str], None]],
    outcomes: tuple[Outcome, ...],
) -> None:
    timer = stage.timers().set(TENANT, TimerRequest(url=URL, when=When(5_000)))
    running = RunningStage(stage, clock, *outcomes)
    stage.before_call = trouble(stage, number)

    running.until(START + RUNNING_MS)

    calls = sending_times(running.sender)
    assert all(at >= timer.due_at for at in calls)
    bound = LEASE_MS + SWEEP_MS
    assert calls[0] - timer.due_at <= bound
    assert statuses(stage, [timer]) == {Status.FIRED}
    assert len(outcomes) <= len(calls) <= len(outcomes) + 1


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("seconds", [1, 30])
def test_a_process_death_during_a_create_loses_no_acknowledged_timer(
    stage: MotoStage, clock: ManualClock, number: int, seconds: int
) -> None:
    acknowledged = []
    stage.before_call = dying_at(stage, number)
    for _ in range(3):
        try:
            acknowledged.append(
                stage.timers().set(TENANT, TimerRequest(url=URL, when=When(seconds * 1000)))
            )
        except ProcessDied:
            stage.begin_process()
    stage.heal()
    running = RunningStage(stage, clock)

    running.until(START + seconds * 1000 + RUNNING_MS)

    assert len(acknowledged) >= 2
    assert statuses(stage, acknowledged) == {Status.FIRED}
    assert min(sending_times(running.sender)) >= START + seconds * 1000


@pytest.mark.parametrize("number", [1, 2, 65, 128, 129, 130, 131, 132, 133])
def test_a_process_death_of_the_sweeper_costs_one_sweep(
    stage: MotoStage, clock: ManualClock, number: int
) -> None:
    timers = [stage.timers().set(TENANT, TimerRequest(url=URL, when=When(5_000))) for _ in range(3)]
    stage.drain()
    clock.now = START + 10_000
    stage.drain()  # every wake-up is lost
    running = RunningStage(stage, clock)
    stage.before_call = dying_at(stage, number)

    running.until(START + RUNNING_MS + SWEEP_MS)

    assert statuses(stage, timers) == {Status.FIRED}
    late = max(sending_times(running.sender)) - (START + 5_000)
    assert late <= LEASE_MS + 2 * SWEEP_MS
    assert len(running.sender.sent) == 3


def test_an_outage_of_everything_for_two_minutes_loses_no_timer(
    stage: MotoStage, clock: ManualClock
) -> None:
    timers = [stage.timers().set(TENANT, TimerRequest(url=URL, when=When(5_000))) for _ in range(5)]
    running = RunningStage(stage, clock)
    stage.fail()
    running.until(START + 2 * 60_000)
    assert running.sender.sent == []

    stage.heal()
    running.until(clock.now + LEASE_MS + SWEEP_MS)

    assert statuses(stage, timers) == {Status.FIRED}
    assert len(running.sender.sent) == 5
