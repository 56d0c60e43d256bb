"""``Delivery``, the use case behind every wake-up, on every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.aws.waking_store import ArmableStore
from chalicelib.domain.attempt_log import AttemptRecord
from chalicelib.domain.claim import ClaimResult
from chalicelib.domain.errors import TimerNotFound, Unavailable
from chalicelib.domain.timer import Status, Timer
from chalicelib.domain.webhook import Outcome
from chalicelib.service.delivery import MAX_WAIT_MS, PUT_BACK_MS, Delivery
from chalicelib.service.ports import Metric
from tests.support.clock import START, ManualClock
from tests.support.delivery import RETRY_DELAYS_S, delivery_of
from tests.support.factories import (
    DUE,
    LEASE_MS,
    TENANT,
    change_of,
    claimed,
    set_timer,
    settled,
)
from tests.support.meter import RecordingMeter
from tests.support.moto_stage import MotoStage
from tests.support.sender import OK, FakeSender
from tests.support.stores import FakeArmableStore, FakeWakingStore, is_armed
from tests.support.wakeups import RecordingWakeups

REFUSED = Outcome(status=503)
GONE = Outcome(status=410)
DOWN = Unavailable("It is down.")


class BrokenStore:
    """A store whose methods in ``before`` and ``after`` fail before or after they do their work."""

    def __init__(self, rows: ArmableStore) -> None:
        self._rows = rows
        self.before: set[str] = set()
        self.after: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._rows, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if name in self.before:
                raise DOWN
            result = method(*arguments, **options)
            if name in self.after:
                raise DOWN
            return result

        return call


@pytest.fixture(params=["sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest) -> Iterator[FakeWakingStore]:
    if request.param == "sqlite":
        rows = FakeArmableStore()
        yield FakeWakingStore(rows)
        rows.close()
    else:
        stage: MotoStage = request.getfixturevalue("stage")
        yield stage.store


@pytest.fixture
def wakeups() -> RecordingWakeups:
    return RecordingWakeups()


@pytest.fixture
def sender(clock: ManualClock) -> FakeSender:
    return FakeSender(clock)


@pytest.fixture
def delivery(
    store: FakeWakingStore, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> Delivery:
    return delivery_of(store.rows, wakeups, sender, clock)


def stored(store: FakeWakingStore, timer: Timer) -> Timer:
    return store.get(TENANT, timer.id)


def failing(
    store: FakeWakingStore, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> tuple[Delivery, BrokenStore]:
    broken: Any = BrokenStore(store.rows)
    return delivery_of(broken, wakeups, sender, clock), broken


def outcome_of(attempt: AttemptRecord | None) -> Outcome | None:
    """Return the outcome that an attempt records."""
    if attempt is None:
        return None
    return Outcome(status=attempt.status, error=attempt.error)


def test_a_timer_that_is_due_is_called_once_and_settled(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    sender: FakeSender,
    clock: ManualClock,
    delivery: Delivery,
) -> None:
    timer = set_timer(store)
    clock.now = DUE

    assert outcome_of(delivery.deliver(timer.wakeup())) == OK
    assert delivery.deliver(timer.wakeup()) is None

    (sent,) = sender.sent
    assert sent.call.url == f"{timer.url}/{timer.id}"
    assert stored(store, timer).status is Status.FIRED
    assert wakeups.registered == []


def test_a_wakeup_up_to_a_second_early_waits_until_the_timer_is_due(
    store: FakeWakingStore, sender: FakeSender, clock: ManualClock, delivery: Delivery
) -> None:
    timer = set_timer(store)
    clock.now = DUE - MAX_WAIT_MS

    delivery.deliver(timer.wakeup())

    assert [sent.at for sent in sender.sent] == [DUE]


def test_a_wakeup_more_than_a_second_early_is_put_back_and_sends_nothing(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    sender: FakeSender,
    clock: ManualClock,
    delivery: Delivery,
) -> None:
    timer = set_timer(store)
    clock.now = DUE - MAX_WAIT_MS - 0.5

    assert delivery.deliver(timer.wakeup()) is None

    assert wakeups.registered == [timer.wakeup()]
    assert sender.sent == []
    assert stored(store, timer) == timer


def test_a_wakeup_that_claims_to_be_due_sends_nothing_early(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    sender: FakeSender,
    clock: ManualClock,
    delivery: Delivery,
) -> None:
    timer = set_timer(store)
    clock.now = DUE - 0.001

    delivery.deliver(replace(timer.wakeup(), at=START))

    assert sender.sent == []
    assert wakeups.registered == [timer.wakeup()]


def test_a_wakeup_of_an_old_version_does_nothing(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    sender: FakeSender,
    clock: ManualClock,
    delivery: Delivery,
) -> None:
    timer = set_timer(store)
    store.reschedule(change_of(timer, at=DUE + 60_000, now=START))
    clock.now = DUE + 60_000

    assert delivery.deliver(timer.wakeup()) is None

    assert sender.sent == []
    assert wakeups.registered == []


@pytest.mark.parametrize("end", ["cancelled", "fired", "failed", "never was"])
def test_a_wakeup_of_a_settled_removed_or_unknown_timer_does_nothing(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    sender: FakeSender,
    clock: ManualClock,
    delivery: Delivery,
    *,
    end: str,
) -> None:
    timer = set_timer(store)
    if end == "cancelled":
        store.cancel(TENANT, timer.id, START)
    elif end == "never was":
        timer = replace(timer, id=4_711)
    else:
        settled(store, timer, Status(end))
    clock.now = DUE

    assert delivery.deliver(timer.wakeup()) is None

    assert sender.sent == []
    assert wakeups.registered == []


def test_a_timer_claimed_by_another_sender_is_woken_when_the_lease_ends(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    sender: FakeSender,
    clock: ManualClock,
    delivery: Delivery,
) -> None:
    timer = set_timer(store)
    claimed(store, timer, "another's")
    clock.now = DUE + 10

    assert delivery.deliver(timer.wakeup()) is None

    (again,) = wakeups.registered
    assert (again.id, again.version, again.at) == (timer.id, 1, DUE + LEASE_MS)
    assert sender.sent == []
    clock.now = again.at
    assert outcome_of(delivery.deliver(again)) == OK


def test_a_timer_is_held_against_a_sender_whose_clock_is_5_s_ahead(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    clock: ManualClock,
    sender: FakeSender,
    delivery: Delivery,
) -> None:
    ahead = ManualClock()
    hasty = delivery_of(store.rows, wakeups, FakeSender(ahead), ahead)
    timer = set_timer(store)
    claimed(store, timer, "another's")
    ahead.now = DUE + LEASE_MS - 1  # five seconds before that, by the clock of who holds it

    assert hasty.deliver(timer.wakeup()) is None


# What comes of a call


@pytest.mark.parametrize("outcome", [REFUSED, Outcome(error="timed out"), Outcome(status=302)])
def test_a_failed_call_is_tried_again_under_a_new_version(
    store: FakeWakingStore, wakeups: RecordingWakeups, clock: ManualClock, outcome: Outcome
) -> None:
    timer = set_timer(store)
    clock.now = DUE
    delivery = delivery_of(store.rows, wakeups, FakeSender(clock, outcome, OK), clock)

    assert outcome_of(delivery.deliver(timer.wakeup())) == outcome

    retry_at = DUE + int(RETRY_DELAYS_S[0] * 1000)
    (following,) = wakeups.registered
    assert (following.version, following.at) == (2, retry_at)
    waiting = stored(store, timer)
    assert (waiting.status, waiting.version) == (Status.PENDING, 2)
    assert is_armed(store.rows, waiting)
    assert waiting.next_attempt_at == retry_at
    clock.now = retry_at
    assert delivery.deliver(timer.wakeup()) is None
    assert outcome_of(delivery.deliver(following)) == OK
    assert stored(store, timer).attempts == 2


@pytest.mark.parametrize(("outcome", "calls"), [(GONE, 1), (REFUSED, len(RETRY_DELAYS_S) + 1)])
def test_a_timer_fails_when_its_receiver_is_gone_or_its_attempts_are_used_up(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    clock: ManualClock,
    outcome: Outcome,
    calls: int,
) -> None:
    timer = set_timer(store)
    sender = FakeSender(clock, outcome)
    delivery = delivery_of(store.rows, wakeups, sender, clock)
    pending = [timer.wakeup()]
    for wakeup in pending:
        clock.now = wakeup.at
        delivery.deliver(wakeup)
        pending += wakeups.registered
        wakeups.registered.clear()

    assert len(sender.sent) == calls
    assert stored(store, timer).status is Status.FAILED


def test_a_url_that_can_no_longer_be_called_fails_like_any_call(
    store: FakeWakingStore, sender: FakeSender, clock: ManualClock, delivery: Delivery
) -> None:
    timer = set_timer(store, url="ftp://receiver.example")
    clock.now = DUE

    outcome = delivery.deliver(timer.wakeup())

    assert outcome
    assert outcome.error
    assert sender.sent == []
    assert stored(store, timer).attempts == 1


def test_a_retry_is_registered_before_it_is_written(
    store: FakeWakingStore, wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    timer = set_timer(store)
    clock.now = DUE
    delivery, broken = failing(store, wakeups, FakeSender(clock, REFUSED), clock)
    broken.before.add("settle")

    delivery.deliver(timer.wakeup())

    assert [wakeup.version for wakeup in wakeups.registered] == [2, 1]
    assert stored(store, timer).version == 1


def test_a_retry_that_cannot_be_registered_is_left_unarmed_to_the_sweeper(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE
    stage.fail("SendMessage")

    assert outcome_of(stage.delivery(FakeSender(clock, REFUSED)).deliver(timer.wakeup())) == REFUSED

    waiting = stored(stage.store, timer)
    assert waiting.version == 2
    assert not stage.is_armed(waiting)


def test_a_retry_whose_delay_its_write_outlasts_is_woken_again(
    store: FakeWakingStore, wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    timer = set_timer(store)
    clock.now = DUE

    class SlowStore(BrokenStore):
        def settle(self, settlement: Any, *, armed: bool) -> bool:
            clock.advance(RETRY_DELAYS_S[0] * 1000)
            return self._rows.settle(settlement, armed=armed)

    slow: Any = SlowStore(store.rows)
    delivery_of(slow, wakeups, FakeSender(clock, REFUSED), clock).deliver(timer.wakeup())

    assert wakeups.registered == [stored(store, timer).wakeup()] * 2


# What cannot be written


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("outcome", [OK, REFUSED])
def test_an_unrecorded_outcome_gets_a_wakeup_at_the_end_of_the_lease(
    store: FakeWakingStore,
    wakeups: RecordingWakeups,
    clock: ManualClock,
    outcome: Outcome,
    *,
    applied: bool,
) -> None:
    timer = set_timer(store)
    clock.now = DUE
    sender = FakeSender(clock, outcome)
    delivery, broken = failing(store, wakeups, sender, clock)
    (broken.after if applied else broken.before).add("settle")

    delivery.deliver(timer.wakeup())

    last = wakeups.registered[-1]
    assert (last.version, last.at) == (1, DUE + LEASE_MS)
    broken.before.clear()
    broken.after.clear()
    clock.now = last.at
    delivery.deliver(last)
    assert len(sender.sent) == (1 if applied else 2)


def test_a_claim_that_fails_is_an_error_of_the_delivery(
    store: FakeWakingStore, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    timer = set_timer(store)
    clock.now = DUE
    delivery, broken = failing(store, wakeups, sender, clock)
    broken.before.add("claim")

    with pytest.raises(Unavailable):
        delivery.deliver(timer.wakeup())
    assert sender.sent == []


def test_a_sender_whose_lease_has_ended_settles_nothing(
    store: FakeWakingStore, wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    timer = set_timer(store)
    clock.now = DUE
    slow = FakeSender(clock, REFUSED)
    slow.takes_ms = LEASE_MS
    taken_over: list[Timer] = []

    class OvertakenSender(FakeSender):
        def send(self, call: Any) -> Outcome:
            outcome = slow.send(call)
            taken_over.append(claimed(store, timer, "another's", now=DUE + LEASE_MS))
            return outcome

    delivery_of(store.rows, wakeups, OvertakenSender(clock), clock).deliver(timer.wakeup())

    assert stored(store, timer) == taken_over[0]


def test_a_sender_that_comes_to_a_halt_after_its_claim_does_not_send(
    store: FakeWakingStore, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    timer = set_timer(store)
    clock.now = DUE

    class HaltingStore(BrokenStore):
        def claim(self, claim: Any) -> ClaimResult:
            claimed = self._rows.claim(claim)
            clock.advance(LEASE_MS)
            store.cancel(TENANT, timer.id, int(clock.now))
            return claimed

    halting: Any = HaltingStore(store.rows)
    with pytest.raises(Unavailable):
        delivery_of(halting, wakeups, sender, clock).deliver(timer.wakeup())

    assert sender.sent == []


# Batches


def test_a_batch_is_delivered_each_on_its_own(
    stage: MotoStage, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    timers = [set_timer(stage.store) for _ in range(4)]
    void = replace(timers[0].wakeup(), version=9)
    far = replace(timers[0].wakeup(), at=DUE + 60_000)
    clock.now = DUE

    delivery = delivery_of(stage.rows, wakeups, sender, clock)
    delivery.deliver_all([void, far, *(timer.wakeup() for timer in timers)])

    assert {sent.call.url for sent in sender.sent} == {
        f"{timer.url}/{timer.id}" for timer in timers
    }
    assert wakeups.registered == [far]


def test_a_batch_of_nothing_is_delivered(delivery: Delivery) -> None:
    delivery.deliver_all([])


def test_a_failed_delivery_is_put_back_and_the_rest_of_the_batch_is_not(
    stage: MotoStage, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    far = replace(timer.wakeup(), id=2, at=DUE + 60_000)
    clock.now = DUE + 0.7
    delivery, broken = failing(stage.store, wakeups, sender, clock)
    broken.before.add("claim")

    delivery.deliver_all([timer.wakeup(), far])

    assert sorted(wakeups.registered, key=lambda wakeup: wakeup.id) == [
        replace(timer.wakeup(), at=DUE + PUT_BACK_MS, put_backs=1),
        far,
    ]


def test_a_batch_fails_only_if_a_wakeup_could_not_be_put_back(
    stage: MotoStage, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    timers = [set_timer(stage.store) for _ in range(3)]
    clock.now = DUE
    wakeups.broken = True
    delivery = delivery_of(stage.rows, wakeups, sender, clock)
    far = replace(timers[0].wakeup(), at=DUE + 60_000)

    delivery.deliver_all([timers[0].wakeup(), timers[1].wakeup()])
    with pytest.raises(Unavailable):
        delivery.deliver_all([far, timers[2].wakeup()])

    assert len(sender.sent) == 3


def test_a_call_that_could_not_begin_is_no_attempt_and_is_made_after_the_lease(
    stage: MotoStage, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    class BrokenSender(FakeSender):
        def send(self, call: Any) -> Outcome:
            raise DOWN

    timer = set_timer(stage.store)
    clock.now = DUE
    delivery_of(stage.rows, wakeups, BrokenSender(clock), clock).deliver_all([timer.wakeup()])

    assert wakeups.registered == [replace(timer.wakeup(), at=DUE + PUT_BACK_MS, put_backs=1)]
    assert stored(stage.store, timer).log == ()
    clock.now = DUE + LEASE_MS
    assert outcome_of(delivery_of(stage.rows, wakeups, sender, clock).deliver(timer.wakeup())) == OK


# An operator's request


def test_an_operator_delivers_a_due_timer(
    store: FakeWakingStore, sender: FakeSender, clock: ManualClock, delivery: Delivery
) -> None:
    timer = set_timer(store)
    clock.now = DUE

    assert outcome_of(delivery.wake_or_deliver(TENANT, timer.id)) == OK
    assert delivery.wake_or_deliver(TENANT, timer.id) is None
    assert len(sender.sent) == 1


def test_an_operator_registers_the_wakeup_of_a_timer_that_is_not_due(
    store: FakeWakingStore, wakeups: RecordingWakeups, sender: FakeSender, delivery: Delivery
) -> None:
    timer = set_timer(store)

    assert delivery.wake_or_deliver(TENANT, timer.id) is None

    assert wakeups.registered == [timer.wakeup()]
    assert sender.sent == []


def test_an_operator_gets_an_error_for_an_unknown_timer(delivery: Delivery) -> None:
    with pytest.raises(TimerNotFound):
        delivery.wake_or_deliver(TENANT, 4_711)


# What is counted


def test_lateness_and_outcomes_are_counted(
    store: FakeWakingStore, wakeups: RecordingWakeups, clock: ManualClock
) -> None:
    meter = RecordingMeter()
    delivery = delivery_of(store.rows, wakeups, FakeSender(clock, OK, REFUSED, GONE), clock, meter)
    for _ in range(3):
        clock.now = START
        timer = set_timer(store)
        clock.now = DUE + 12
        delivery.deliver(timer.wakeup())

    assert meter.of(Metric.LATENESS_MS) == [12] * 3
    assert [meter.of(each) for each in (Metric.FIRED, Metric.RETRIED, Metric.FAILED)] == [[1]] * 3


@pytest.mark.parametrize("armed", [True, False])
def test_whether_a_timer_is_armed_makes_no_difference_to_its_delivery(
    store: FakeWakingStore, clock: ManualClock, delivery: Delivery, *, armed: bool
) -> None:
    store.armed = armed
    timer = set_timer(store)
    clock.now = DUE

    assert outcome_of(delivery.deliver(timer.wakeup())) == OK


def test_put_backs_come_later_each_time_but_within_a_minute(
    stage: MotoStage, wakeups: RecordingWakeups, sender: FakeSender, clock: ManualClock
) -> None:
    timer = set_timer(stage.store)
    clock.now = DUE
    delivery, broken = failing(stage.store, wakeups, sender, clock)
    delays = []
    wakeup = timer.wakeup()
    for _ in range(20):
        broken.before.add("claim")
        delivery.deliver_all([wakeup])
        wakeup = wakeups.registered[-1]
        delays.append(wakeup.at - int(clock.now))
        clock.now = wakeup.at
    assert delays == [5_000, 10_000, 20_000, 40_000, *[60_000] * 16]
    delivery_of(stage.rows, wakeups, sender, clock).deliver_all([wakeup])
    assert len(sender.sent) == 1
