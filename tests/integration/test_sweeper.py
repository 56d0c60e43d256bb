"""The sweeper, which finds missed timers, on DynamoDB and SQS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.message import decode_all
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import Timer, Wakeup
from chalicelib.service.ports import SweepCutoffs, unmetered
from chalicelib.service.sweep import LOOK_AHEAD_MS, MARK_TTL_MS, Sweeper
from tests.support.clock import START, ManualClock
from tests.support.factories import (
    DUE,
    LEASE_MS,
    TENANT,
    change_of,
    claimed,
    new_timer,
    set_timer,
    settled,
)
from tests.support.moto_stage import NAMES, MotoStage
from tests.support.sender import FakeSender

GRACE_MS = LEASE_MS
MINUTE_MS = 60_000
MANY = 1_000
"""Overdue timers of a test. The rules know no number; ten times as many take ten times as long."""


def fill(stage: MotoStage, count: int, *, due_at: int = DUE, first: int = 1) -> list[Timer]:
    """Write many armed timers straight into the table, for speed."""
    timers = [
        Timer.first(new_timer(due_at=due_at), timer_id) for timer_id in range(first, first + count)
    ]
    for start in range(0, count, 25):
        batch = [
            {"PutRequest": {"Item": rows.new_row(timer, armed=True)[0]}}
            for timer in timers[start : start + 25]
        ]
        stage.dynamodb.batch_write_item(RequestItems={NAMES.table: batch})  # type: ignore[dict-item]
    stage.calls.clear()
    return timers


def swept(stage: MotoStage) -> list[int]:
    """Sweep, and return the timers that were put on the queue, in order of their ids."""
    stage.calls.clear()
    result = stage.sweeper().sweep()
    ids = sorted(wakeup.id for wakeup, _ in stage.sent())
    assert result.finished
    assert result.sent == len(ids)
    return ids


def test_an_armed_timer_is_missed_once_its_grace_is_over(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE + GRACE_MS - 1
    assert swept(stage) == []

    clock.now = DUE + GRACE_MS
    assert swept(stage) == [timer.id]
    assert stage.sent() == [(timer.wakeup(), 0)]


def test_a_timer_that_needs_nothing_is_left_alone(stage: MotoStage, clock: ManualClock) -> None:
    settled(stage.store, set_timer(stage.store))
    stage.store.cancel(TENANT, set_timer(stage.store).id, START)
    set_timer(stage.store, due_at=DUE + 10 * MINUTE_MS)
    clock.now = DUE + GRACE_MS

    assert swept(stage) == []


def test_an_unarmed_timer_is_woken_for_its_exact_time_before_it_is_due(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.store.armed = False
    timer = set_timer(stage.store, due_at=START + 10 * MINUTE_MS)
    clock.now = timer.due_at - LOOK_AHEAD_MS - 1
    assert swept(stage) == []

    clock.now = timer.due_at - LOOK_AHEAD_MS
    assert swept(stage) == [timer.id]
    assert stage.sent() == [(timer.wakeup(), LOOK_AHEAD_MS // 1000)]


def test_a_mark_holds_for_its_lifetime_and_then_the_message_is_sent_again(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = sent_at = DUE + GRACE_MS
    assert swept(stage) == [timer.id]
    stage.drain()  # the message is lost

    clock.now = sent_at + MARK_TTL_MS
    assert swept(stage) == []
    clock.now = sent_at + MARK_TTL_MS + 1
    assert swept(stage) == [timer.id]


def test_a_mark_is_void_once_the_timer_has_a_new_version(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE + GRACE_MS
    assert swept(stage) == [timer.id]
    stage.store.armed = False
    stage.store.reschedule(change_of(timer, at=DUE + MINUTE_MS, now=int(clock.now)))
    clock.now += MINUTE_MS

    assert swept(stage) == [timer.id]


@pytest.mark.parametrize("fate", ["delivered", "lost"])
def test_each_of_many_is_queued_once_however_often_they_are_swept(
    stage: MotoStage, clock: ManualClock, fate: str
) -> None:
    timers = fill(stage, MANY)
    sender = FakeSender(clock)
    delivery = stage.delivery(sender)
    clock.now = DUE + GRACE_MS
    queued: Counter[int] = Counter()

    for _ in range(5):
        queued.update(swept(stage))
        if fate == "lost":
            stage.drain()
        else:
            messages = stage.receive()  # the backlog drains, slowly
            delivery.deliver_all(decode_all([each["Body"] for each in messages], unmetered))
            stage.delete(messages)
        clock.advance(MINUTE_MS)

    assert queued == Counter({timer.id: 1 for timer in timers})
    assert len(sender.sent) == (0 if fate == "lost" else 50)


def test_timers_in_the_backlog_are_not_queued_again_but_the_rest_are(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    stage.wakeups.wake_at(replace(timer.wakeup(), at=0))  # waits to be received
    clock.now = DUE + GRACE_MS
    assert swept(stage) == []

    clock.now = DUE + MARK_TTL_MS
    assert swept(stage) == [timer.id]


def test_a_backlog_does_not_delay_timers_without_a_message(
    stage: MotoStage, clock: ManualClock
) -> None:
    stage.store.armed = False
    timer = set_timer(stage.store)
    stage.wakeups.wake_at(replace(timer.wakeup(), id=4_711, at=0))
    clock.now = DUE

    assert swept(stage) == [timer.id]


def test_messages_that_are_not_due_yet_are_no_backlog(stage: MotoStage, clock: ManualClock) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE + GRACE_MS
    stage.wakeups.wake_at(replace(timer.wakeup(), id=4_711, at=DUE + 10 * MINUTE_MS))

    assert swept(stage) == [timer.id]


def test_two_sweeps_at_once_wake_every_timer(stage: MotoStage, clock: ManualClock) -> None:
    timers = fill(stage, 100)
    clock.now = DUE + GRACE_MS
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: stage.sweeper().sweep(), range(2)))

    ids = Counter(wakeup.id for wakeup, _ in stage.sent())
    assert ids.keys() == {timer.id for timer in timers}
    assert max(ids.values()) <= 2
    assert swept(stage) == []


# What a sweep costs


def cost(stage: MotoStage) -> Counter[str]:
    stage.calls.clear()
    stage.sweeper().sweep()
    return Counter(stage.operations())


def test_a_sweep_costs_the_same_however_many_are_pending(stage: MotoStage) -> None:
    empty = cost(stage)
    fill(stage, 100, due_at=DUE + 10 * MINUTE_MS)
    few = cost(stage)
    fill(stage, 2_000, due_at=DUE + 60 * MINUTE_MS, first=1_000)
    many = cost(stage)

    assert empty == few == many == {"Query": 2 * rows.SHARDS, "GetQueueAttributes": 1}


def test_a_sweep_reads_no_timers_beyond_its_cutoffs(stage: MotoStage, clock: ManualClock) -> None:
    fill(stage, 500, due_at=DUE + 60 * MINUTE_MS, first=1_000)
    timer = set_timer(stage.store)
    clock.now = DUE + GRACE_MS

    assert cost(stage) == {
        "Query": 2 * rows.SHARDS,
        "GetQueueAttributes": 1,
        "SendMessageBatch": 1,
        "UpdateItem": 1,
    }
    assert stage.store.get(TENANT, timer.id) == timer


# Sweeps that are cut short


class SlowIndex:
    """One part with page after page, each of which takes a second to read."""

    def __init__(self, clock: ManualClock, wakeups: Sequence[Wakeup]) -> None:
        self._clock = clock
        self._left = list(wakeups)
        self.marked: list[Wakeup] = []

    def shards(self) -> Sequence[int]:
        return [0]

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        for wakeup in self._left:
            self._clock.advance(1_000)
            yield [] if wakeup in self.marked else [wakeup]

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> None:
        self.marked.append(wakeup)


def test_a_sweep_stops_in_time_and_the_next_continues(stage: MotoStage, clock: ManualClock) -> None:
    wakeups = [Timer.first(new_timer(), timer_id).wakeup() for timer_id in range(1, 7)]
    index = SlowIndex(clock, wakeups)
    sweeper = Sweeper(index, stage.wakeups, clock, grace_ms=GRACE_MS, budget_ms=4_000)

    first = sweeper.sweep()
    assert (first.finished, first.sent) == (False, 3)
    assert clock.now <= START + 4_000
    sweeper = Sweeper(index, stage.wakeups, clock, grace_ms=GRACE_MS, budget_ms=7_000)
    second = sweeper.sweep()
    assert (second.finished, second.sent) == (True, 3)
    assert [wakeup for wakeup, _ in stage.sent()] == wakeups


@pytest.mark.parametrize("operation", ["Query", "UpdateItem", "SendMessageBatch"])
def test_a_failed_sweep_loses_no_timer(
    stage: MotoStage, clock: ManualClock, operation: str
) -> None:
    timers = fill(stage, 30)
    clock.now = DUE + GRACE_MS
    stage.fail(operation)
    with pytest.raises(Unavailable):
        stage.sweeper().sweep()
    stage.heal()
    clock.advance(MINUTE_MS)
    stage.drain()  # whatever the failed sweep had sent

    assert swept(stage) == [timer.id for timer in timers]


def test_wakeups_that_the_queue_refuses_are_left_to_the_next_sweep(
    stage: MotoStage, clock: ManualClock
) -> None:
    class FullQueue:
        def backlog(self) -> int:
            return 0

        def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
            return []

    timer = set_timer(stage.store)
    clock.now = DUE + GRACE_MS
    index = DynamoDBDueIndex(stage.dynamodb, NAMES.table)
    assert Sweeper(index, FullQueue(), clock, grace_ms=GRACE_MS).sweep().sent == 0

    assert swept(stage) == [timer.id]


def test_the_longest_overdue_is_reported(stage: MotoStage, clock: ManualClock) -> None:
    set_timer(stage.store)
    set_timer(stage.store, due_at=DUE + 5_000)
    clock.now = DUE + GRACE_MS + 10_000

    result = stage.sweeper().sweep()

    assert (result.sent, result.overdue_ms) == (2, GRACE_MS + 10_000)


# What a sweep finds is delivered


def test_a_timer_whose_sender_died_is_called_after_its_lease(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    claimed(stage.store, timer, "of a dead sender")
    clock.now = DUE + LEASE_MS
    sender = FakeSender(clock)

    assert swept(stage) == [timer.id]
    for wakeup in stage.drain():
        assert stage.delivery(sender).deliver(wakeup)

    assert len(sender.sent) == 1
