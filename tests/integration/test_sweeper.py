"""The use case that finds what was missed, on DynamoDB and SQS."""

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
from tests.support.clock import START, HandClock
from tests.support.cloud import NAMES, Cloud, HandSender
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

GRACE_MS = LEASE_MS
MINUTE_MS = 60_000
MANY = 1_000
"""Overdue timers of a test. The rules know no number; ten times as many take ten times as long."""


def fill(cloud: Cloud, count: int, *, due_at: int = DUE, first: int = 1) -> list[Timer]:
    """Write many armed timers straight into the table, for speed."""
    timers = [
        Timer.first(new_timer(due_at=due_at), timer_id) for timer_id in range(first, first + count)
    ]
    for start in range(0, count, 25):
        batch = [
            {"PutRequest": {"Item": rows.new_row(timer, armed=True)}}
            for timer in timers[start : start + 25]
        ]
        cloud.dynamodb.batch_write_item(RequestItems={NAMES.table: batch})  # type: ignore[dict-item]
    cloud.calls.clear()
    return timers


def swept(cloud: Cloud) -> list[int]:
    """Sweep, and return the timers that were put on the queue, in order of their ids."""
    cloud.calls.clear()
    result = cloud.sweeper().sweep()
    ids = sorted(wakeup.id for wakeup, _ in cloud.sent())
    assert result.finished
    assert result.sent == len(ids)
    return ids


def test_an_armed_timer_is_missed_once_its_grace_is_over(cloud: Cloud, clock: HandClock) -> None:
    timer = set_timer(cloud.store)
    clock.now = DUE + GRACE_MS - 1
    assert swept(cloud) == []

    clock.now = DUE + GRACE_MS
    assert swept(cloud) == [timer.id]
    assert cloud.sent() == [(timer.wakeup(), 0)]


def test_a_timer_that_needs_nothing_is_left_alone(cloud: Cloud, clock: HandClock) -> None:
    settled(cloud.store, set_timer(cloud.store))
    cloud.store.cancel(TENANT, set_timer(cloud.store).id, START)
    set_timer(cloud.store, due_at=DUE + 10 * MINUTE_MS)
    clock.now = DUE + GRACE_MS

    assert swept(cloud) == []


def test_an_unarmed_timer_is_woken_for_its_exact_moment_before_it_is_due(
    cloud: Cloud, clock: HandClock
) -> None:
    cloud.store.armed = False
    timer = set_timer(cloud.store, due_at=START + 10 * MINUTE_MS)
    clock.now = timer.due_at - LOOK_AHEAD_MS - 1
    assert swept(cloud) == []

    clock.now = timer.due_at - LOOK_AHEAD_MS
    assert swept(cloud) == [timer.id]
    assert cloud.sent() == [(timer.wakeup(), LOOK_AHEAD_MS // 1000)]


def test_a_mark_holds_for_its_life_and_then_the_message_is_sent_again(
    cloud: Cloud, clock: HandClock
) -> None:
    timer = set_timer(cloud.store)
    clock.now = sent_at = DUE + GRACE_MS
    assert swept(cloud) == [timer.id]
    cloud.drain()  # the message is lost

    clock.now = sent_at + MARK_TTL_MS
    assert swept(cloud) == []
    clock.now = sent_at + MARK_TTL_MS + 1
    assert swept(cloud) == [timer.id]


def test_a_mark_is_void_once_the_timer_has_a_new_version(cloud: Cloud, clock: HandClock) -> None:
    timer = set_timer(cloud.store)
    clock.now = DUE + GRACE_MS
    assert swept(cloud) == [timer.id]
    cloud.store.armed = False
    cloud.store.reschedule(change_of(timer, at=DUE + MINUTE_MS, now=int(clock.now)))
    clock.now += MINUTE_MS

    assert swept(cloud) == [timer.id]


@pytest.mark.parametrize("fate", ["delivered", "lost"])
def test_each_of_many_is_queued_once_however_often_they_are_swept(
    cloud: Cloud, clock: HandClock, fate: str
) -> None:
    timers = fill(cloud, MANY)
    sender = HandSender(clock)
    delivery = cloud.delivery(sender)
    clock.now = DUE + GRACE_MS
    queued: Counter[int] = Counter()

    for _ in range(5):
        queued.update(swept(cloud))
        if fate == "lost":
            cloud.drain()
        else:
            messages = cloud.receive()  # the backlog drains, slowly
            delivery.deliver_all(decode_all([each["Body"] for each in messages], unmetered))
            cloud.delete(messages)
        clock.advance(MINUTE_MS)

    assert queued == Counter({timer.id: 1 for timer in timers})
    assert len(sender.sent) == (0 if fate == "lost" else 50)


def test_what_a_backlog_explains_is_not_queued_again_and_the_rest_is(
    cloud: Cloud, clock: HandClock
) -> None:
    timer = set_timer(cloud.store)
    cloud.wakeups.wake_at(replace(timer.wakeup(), at=0))  # waits to be received
    clock.now = DUE + GRACE_MS
    assert swept(cloud) == []

    clock.now = DUE + MARK_TTL_MS
    assert swept(cloud) == [timer.id]


def test_a_backlog_does_not_hold_up_what_has_no_message_at_all(
    cloud: Cloud, clock: HandClock
) -> None:
    cloud.store.armed = False
    timer = set_timer(cloud.store)
    cloud.wakeups.wake_at(replace(timer.wakeup(), id=4_711, at=0))
    clock.now = DUE

    assert swept(cloud) == [timer.id]


def test_messages_that_are_not_due_yet_are_no_backlog(cloud: Cloud, clock: HandClock) -> None:
    timer = set_timer(cloud.store)
    clock.now = DUE + GRACE_MS
    cloud.wakeups.wake_at(replace(timer.wakeup(), id=4_711, at=DUE + 10 * MINUTE_MS))

    assert swept(cloud) == [timer.id]


def test_two_sweeps_at_once_wake_every_timer(cloud: Cloud, clock: HandClock) -> None:
    timers = fill(cloud, 100)
    clock.now = DUE + GRACE_MS
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: cloud.sweeper().sweep(), range(2)))

    ids = Counter(wakeup.id for wakeup, _ in cloud.sent())
    assert ids.keys() == {timer.id for timer in timers}
    assert max(ids.values()) <= 2
    assert swept(cloud) == []


# What a sweep costs


def cost(cloud: Cloud) -> Counter[str]:
    cloud.calls.clear()
    cloud.sweeper().sweep()
    return Counter(cloud.operations())


def test_a_sweep_costs_the_same_however_many_are_pending(cloud: Cloud) -> None:
    empty = cost(cloud)
    fill(cloud, 100, due_at=DUE + 10 * MINUTE_MS)
    few = cost(cloud)
    fill(cloud, 2_000, due_at=DUE + 60 * MINUTE_MS, first=1_000)
    many = cost(cloud)

    assert empty == few == many == {"Query": 2 * rows.SHARDS, "GetQueueAttributes": 1}


def test_a_sweep_reads_nothing_that_is_not_its_concern(cloud: Cloud, clock: HandClock) -> None:
    fill(cloud, 500, due_at=DUE + 60 * MINUTE_MS, first=1_000)
    timer = set_timer(cloud.store)
    clock.now = DUE + GRACE_MS

    assert cost(cloud) == {
        "Query": 2 * rows.SHARDS,
        "GetQueueAttributes": 1,
        "SendMessageBatch": 1,
        "UpdateItem": 1,
    }
    assert cloud.store.get(TENANT, timer.id) == timer


# Sweeps that are cut short


class SlowIndex:
    """One part with page after page, each of which takes a second to read."""

    def __init__(self, clock: HandClock, wakeups: Sequence[Wakeup]) -> None:
        self._clock = clock
        self._left = list(wakeups)
        self.marked: list[Wakeup] = []

    def shards(self) -> Sequence[int]:
        return [0]

    def find(self, shard: int, moments: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        for wakeup in self._left:
            self._clock.advance(1_000)
            yield [] if wakeup in self.marked else [wakeup]

    def mark(self, wakeup: Wakeup, moments: SweepCutoffs, now: int) -> None:
        self.marked.append(wakeup)


def test_a_sweep_stops_in_time_and_the_next_goes_on(cloud: Cloud, clock: HandClock) -> None:
    wakeups = [Timer.first(new_timer(), timer_id).wakeup() for timer_id in range(1, 7)]
    index = SlowIndex(clock, wakeups)
    sweeper = Sweeper(index, cloud.wakeups, clock, grace_ms=GRACE_MS, budget_ms=4_000)

    first = sweeper.sweep()
    assert (first.finished, first.sent) == (False, 3)
    assert clock.now <= START + 4_000
    sweeper = Sweeper(index, cloud.wakeups, clock, grace_ms=GRACE_MS, budget_ms=7_000)
    second = sweeper.sweep()
    assert (second.finished, second.sent) == (True, 3)
    assert [wakeup for wakeup, _ in cloud.sent()] == wakeups


@pytest.mark.parametrize("operation", ["Query", "UpdateItem", "SendMessageBatch"])
def test_a_sweep_that_fails_strands_nothing(cloud: Cloud, clock: HandClock, operation: str) -> None:
    timers = fill(cloud, 30)
    clock.now = DUE + GRACE_MS
    cloud.fail(operation)
    with pytest.raises(Unavailable):
        cloud.sweeper().sweep()
    cloud.heal()
    clock.advance(MINUTE_MS)
    cloud.drain()  # whatever the failed sweep had sent

    assert swept(cloud) == [timer.id for timer in timers]


def test_what_the_queue_does_not_take_is_left_to_the_next_sweep(
    cloud: Cloud, clock: HandClock
) -> None:
    class FullQueue:
        def backlog(self) -> int:
            return 0

        def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
            return []

    timer = set_timer(cloud.store)
    clock.now = DUE + GRACE_MS
    index = DynamoDBDueIndex(cloud.dynamodb, NAMES.table)
    assert Sweeper(index, FullQueue(), clock, grace_ms=GRACE_MS).sweep().sent == 0

    assert swept(cloud) == [timer.id]


def test_the_longest_overdue_is_reported(cloud: Cloud, clock: HandClock) -> None:
    set_timer(cloud.store)
    set_timer(cloud.store, due_at=DUE + 5_000)
    clock.now = DUE + GRACE_MS + 10_000

    result = cloud.sweeper().sweep()

    assert (result.sent, result.overdue_ms) == (2, GRACE_MS + 10_000)


# What a sweep finds is delivered


def test_a_timer_whose_sender_died_is_called_after_its_lease(
    cloud: Cloud, clock: HandClock
) -> None:
    timer = set_timer(cloud.store)
    claimed(cloud.store, timer, "the dead one's")
    clock.now = DUE + LEASE_MS
    sender = HandSender(clock)

    assert swept(cloud) == [timer.id]
    for wakeup in cloud.drain():
        assert cloud.delivery(sender).deliver(wakeup)

    assert len(sender.sent) == 1
