"""Time travel: the real dispatcher on a clock that a client moves. Calls are made by a fake."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import AdvanceUnfinished, ClockMoving, Unavailable
from chalicelib.domain.timer import DeliveryOptions, NewTimer, Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.clock import NOT_MOVED, ClockState, DispatcherClock
from chalicelib.embedded.dispatcher import Dispatcher, DispatcherPolicy
from chalicelib.embedded.egress import EgressLimits
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.time_travel import MAX_AHEAD_MS, TimeTravel
from chalicelib.embedded.writer import Writer
from tests.support.clock import START, ManualClock
from tests.support.factories import TENANT
from tests.support.loop import on_a_loop, until

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OK = Outcome(status=204)
BROKEN = Outcome(status=500)


@dataclass
class FakeReceiver:
    """Answers by the number of the timer, or after ``answer``. Notes when each call came."""

    clock: DispatcherClock
    calls: list[tuple[int, float]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[int], Awaitable[Outcome]] | None = None
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)

    @property
    def ids(self) -> list[int]:
        return [timer_id for timer_id, _ in self.calls]

    async def send(self, call: Call) -> Outcome:
        timer_id = int(call.url.rpartition("/")[2])
        self.calls.append((timer_id, self.clock()))
        self.headers.append(dict(call.headers))
        if self.answer:
            return await self.answer(timer_id)
        left = self.outcomes.get(timer_id, [OK])
        return left.pop(0) if len(left) > 1 else left[0]


@dataclass
class Machine:
    """A dispatcher with a test clock."""

    wall_clock: ManualClock
    clock: DispatcherClock
    writer: Writer
    dispatcher: Dispatcher
    receiver: FakeReceiver
    travel: TimeTravel

    @property
    def store(self) -> SQLiteTimerStore:
        return self.writer.store

    async def set(self, delay_ms: int, tenant: str = TENANT, **options: Any) -> int:
        now = int(self.clock())
        new = NewTimer(
            tenant=tenant,
            url="http://h",
            created_at=now,
            due_at=now + delay_ms,
            options=DeliveryOptions(**options),
        )
        timer = await self.writer.submit(lambda: self.store.create(new), durable=True)
        self.dispatcher.wake_at(tenant, timer.due_at)
        return timer.id

    def get(self, timer_id: int) -> Timer:
        return self.store.get(TENANT, timer_id)


@asynccontextmanager
async def machine(
    path: str | None = None, egress: EgressLimits | None = None, **limits: Any
) -> AsyncIterator[Machine]:
    """Yield a machine whose dispatcher runs. Its wall clock stands still."""
    store = SQLiteTimerStore.in_memory() if path is None else SQLiteTimerStore.open(path)
    wall_clock, writer = ManualClock(), Writer(store, log_bytes=0)
    clock = DispatcherClock(wall_clock, store.clock_state())
    receiver = FakeReceiver(clock)
    policy = DispatcherPolicy(
        lease_ms=30_000,
        retry_delays_s=(60, 2 * 3_600),
        retention_days=7.0,
        egress=egress or EgressLimits(max_in_flight=1_000),
    )
    dispatcher = Dispatcher(
        writer,
        receiver,
        policy,
        clock,
        random=lambda: 0.0,
        token=lambda: secrets.token_hex(8),
        ahead_ms=clock.ahead_ms,
    )
    travel = TimeTravel(clock, dispatcher, writer, **limits)
    running = asyncio.create_task(dispatcher.run())
    try:
        yield Machine(wall_clock, clock, writer, dispatcher, receiver, travel)
    finally:
        await dispatcher.stop(grace_s=0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await writer.close()


# What is called, when, and in which order


@on_a_loop
async def test_timers_are_called_in_the_order_of_their_due_times_and_none_is_late() -> None:
    async with machine() as m:
        third, first, second = await m.set(2 * DAY_MS), await m.set(1), await m.set(HOUR_MS)
        advanced = await m.travel.advance(TENANT, 3 * DAY_MS)
        assert advanced.now == START + 3 * DAY_MS
        assert advanced.results == [
            (first, Status.FIRED),
            (second, Status.FIRED),
            (third, Status.FIRED),
        ]
        assert m.receiver.calls == [
            (first, START + 1),
            (second, START + HOUR_MS),
            (third, START + 2 * DAY_MS),
        ]
        assert {m.get(timer_id).log[0].late_ms for timer_id in (first, second, third)} == {0}


@on_a_loop
async def test_timers_due_at_the_same_moment_are_called_one_after_the_other() -> None:
    async with machine() as m:
        in_flight = 0

        async def answer(_timer_id: int) -> Outcome:
            nonlocal in_flight
            in_flight += 1
            await asyncio.sleep(0.001)
            assert in_flight == 1
            in_flight -= 1
            return OK

        m.receiver.answer = answer
        ids = [await m.set(HOUR_MS) for _ in range(30)]
        advanced = await m.travel.advance(TENANT, HOUR_MS)
        assert m.receiver.ids == ids
        assert advanced.ids(Status.FIRED) == ids


@on_a_loop
async def test_a_receiver_that_is_slow_is_not_waited_for_by_others_of_its_moment() -> None:
    async with machine() as m:
        slow, quick, later = await m.set(HOUR_MS), await m.set(HOUR_MS), await m.set(HOUR_MS + 1)
        quick_done = asyncio.Event()

        async def answer(timer_id: int) -> Outcome:
            if timer_id == slow:
                await quick_done.wait()
            if timer_id == quick:
                quick_done.set()
            return OK

        m.receiver.answer = answer
        advanced = await m.travel.advance(TENANT, DAY_MS)
        # In the order in which they were called, not in that of their responses.
        assert advanced.ids(Status.FIRED) == [slow, quick, later]


@on_a_loop
async def test_retries_come_at_their_times_between_other_timers() -> None:
    async with machine() as m:
        broken, other, last = (
            await m.set(HOUR_MS),
            await m.set(HOUR_MS + 90_000),
            await m.set(DAY_MS),
        )
        m.receiver.outcomes[broken] = [BROKEN, BROKEN, OK]
        advanced = await m.travel.advance(TENANT, 3 * DAY_MS)
        assert m.receiver.calls == [
            (broken, START + HOUR_MS),
            (broken, START + HOUR_MS + 60_000),
            (other, START + HOUR_MS + 90_000),
            (broken, START + 3 * HOUR_MS + 60_000),
            (last, START + DAY_MS),
        ]
        assert advanced.ids(Status.FIRED) == [other, broken, last]


@on_a_loop
async def test_what_fails_for_good_and_what_is_tried_again_later_are_told_apart() -> None:
    async with machine() as m:
        failed, waiting = await m.set(1_000), await m.set(HOUR_MS)
        m.receiver.outcomes[failed] = [Outcome(status=410)]
        m.receiver.outcomes[waiting] = [BROKEN]
        advanced = await m.travel.advance(TENANT, HOUR_MS)
        assert advanced.results == [(failed, Status.FAILED)]
        assert m.get(waiting).next_attempt_at == START + HOUR_MS + 60_000


@on_a_loop
async def test_a_timer_that_is_too_late_is_expired() -> None:
    async with machine() as m:
        timer_id = await m.set(1_000, max_lateness_ms=500)
        m.dispatcher._stopping = True  # an outage
        m.dispatcher._woken.set()
        m.wall_clock.advance(HOUR_MS)
        m.dispatcher._stopping = False
        running = asyncio.create_task(m.dispatcher.run())
        advanced = await m.travel.advance(TENANT, 0)
        running.cancel()
        assert advanced.results == [(timer_id, Status.EXPIRED)]
        assert m.receiver.calls == []


@on_a_loop
async def test_a_timer_after_the_end_is_not_called_and_one_at_the_end_is() -> None:
    async with machine() as m:
        at_the_end, after = await m.set(HOUR_MS), await m.set(HOUR_MS + 1)
        await m.travel.advance(TENANT, HOUR_MS)
        assert m.receiver.ids == [at_the_end]
        assert m.get(after).time_left(m.clock()) == 1


@on_a_loop
async def test_a_timer_with_the_delay_of_the_advance_is_called_whatever_the_fraction() -> None:
    async with machine() as m:
        m.wall_clock.advance(0.4)
        # As the API does it: rounded up.
        timer_id = await m.set(HOUR_MS + 1)
        m.wall_clock.advance(0.2)
        await m.travel.advance(TENANT, HOUR_MS)
        assert m.receiver.ids == [timer_id]


@on_a_loop
async def test_only_the_caller_s_timers_are_named_and_all_are_called() -> None:
    async with machine() as m:
        await m.set(HOUR_MS, tenant="other")
        mine = await m.set(HOUR_MS)
        advanced = await m.travel.advance(TENANT, HOUR_MS)
        assert len(m.receiver.calls) == 2
        assert advanced.results == [(mine, Status.FIRED)]


@on_a_loop
async def test_a_receiver_that_sets_a_timer_before_it_answers_has_it_called_in_time() -> None:
    async with machine() as m:
        first = await m.set(HOUR_MS)
        nexts: list[int] = []

        async def answer(timer_id: int) -> Outcome:
            if timer_id == first:
                nexts.extend((await m.set(0), await m.set(60_000)))
            return OK

        m.receiver.answer = answer
        await m.travel.advance(TENANT, DAY_MS)
        assert m.receiver.calls == [
            (first, START + HOUR_MS),
            (nexts[0], START + HOUR_MS),
            (nexts[1], START + HOUR_MS + 60_000),
        ]


@on_a_loop
async def test_the_clock_waits_for_a_call_that_was_in_flight_before() -> None:
    async with machine() as m:
        released = asyncio.Event()

        async def answer(_timer_id: int) -> Outcome:
            await released.wait()
            return OK

        m.receiver.answer = answer
        timer_id = await m.set(0)
        await until(lambda: m.receiver.calls)
        advancing = asyncio.create_task(m.travel.advance(TENANT, DAY_MS))
        await asyncio.sleep(0.02)
        assert m.clock() == START
        released.set()
        advanced = await advancing
        assert m.receiver.ids == [timer_id]  # its lease of 30 s did not end within the day
        assert advanced.ids(Status.FIRED) == [timer_id]


@on_a_loop
async def test_timers_that_wait_for_the_rate_of_a_receiver_are_called_at_their_moment() -> None:
    egress = EgressLimits(max_in_flight=100, receiver_per_s=10.0)
    async with machine(egress=egress) as m:
        ids = [await m.set(HOUR_MS) for _ in range(13)]  # ten are a burst of one second
        later = await m.set(HOUR_MS + 1)
        await m.travel.advance(TENANT, DAY_MS)
        assert m.receiver.ids == [*ids, later]
        assert {at for _, at in m.receiver.calls[:-1]} == {START + HOUR_MS}


@on_a_loop
async def test_webhooks_carry_the_real_time_that_signatures_need() -> None:
    async with machine() as m:
        await m.set(HOUR_MS)
        await m.travel.advance(TENANT, DAY_MS)
        (headers,) = m.receiver.headers
        assert headers["webhook-timestamp"] == str(START // 1000)
        assert headers["timer-lateness-ms"] == "0"


# Until idle, and the limits


@on_a_loop
async def test_until_idle_goes_to_the_last_outstanding_timer_and_its_retries() -> None:
    async with machine() as m:
        await m.set(HOUR_MS)
        last = await m.set(300 * DAY_MS)
        m.receiver.outcomes[last] = [BROKEN]
        advanced = await m.travel.advance(TENANT, None)
        assert advanced.now == START + 300 * DAY_MS + 60_000 + 2 * HOUR_MS
        assert advanced.results[-1] == (last, Status.FAILED)
        again = await m.travel.advance(TENANT, None)
        assert again.now == advanced.now
        assert again.results == []


@on_a_loop
async def test_a_repeatable_timer_fires_each_time_and_is_stopped_at_the_limit_of_calls() -> None:
    async with machine(max_calls=5) as m:
        timer_id = await m.set(HOUR_MS, repeatable=True)
        m.receiver.outcomes[timer_id] = [Outcome(status=204, again="3600")]
        advanced = await m.travel.advance(TENANT, 3 * HOUR_MS)
        assert advanced.ids(Status.FIRED) == [timer_id] * 3
        with pytest.raises(AdvanceUnfinished, match="after 5 calls: a request makes at most 5"):
            await m.travel.advance(TENANT, None)
        assert m.clock() == START + 8 * HOUR_MS
        assert m.clock.state.stopped_at is None


@on_a_loop
async def test_an_endless_moment_ends_at_the_limit_of_time() -> None:
    async with machine(max_advance_s=0.05) as m:

        async def answer(_timer_id: int) -> Outcome:
            await m.set(0)
            return OK

        m.receiver.answer = answer
        await m.set(HOUR_MS)
        with pytest.raises(AdvanceUnfinished, match="It goes on from there"):
            await m.travel.advance(TENANT, None)
        m.receiver.answer = None


@on_a_loop
async def test_the_clock_stays_within_the_years_that_can_be_written() -> None:
    async with machine() as m:
        await m.travel.advance(TENANT, MAX_AHEAD_MS)
        with pytest.raises(AdvanceUnfinished, match="at most 1,000 years ahead"):
            await m.travel.advance(TENANT, 1)


# The clock itself


@on_a_loop
async def test_a_second_advance_is_refused_while_one_runs() -> None:
    async with machine() as m:
        await m.set(HOUR_MS)
        first = asyncio.create_task(m.travel.advance(TENANT, DAY_MS))
        await asyncio.sleep(0)
        with pytest.raises(ClockMoving):
            await m.travel.advance(TENANT, DAY_MS)
        assert (await first).now == START + DAY_MS
        assert (await m.travel.advance(TENANT, 0)).now == START + DAY_MS


@on_a_loop
async def test_between_advances_the_clock_runs_on_with_the_wall_clock() -> None:
    async with machine() as m:
        await m.travel.advance(TENANT, DAY_MS)
        timer_id = await m.set(2_000)
        m.wall_clock.advance(1_999)
        assert m.clock() == START + DAY_MS + 1_999
        await asyncio.sleep(0.02)
        assert m.receiver.calls == []
        m.wall_clock.advance(1)
        await until(lambda: m.get(timer_id).status is Status.FIRED)


@on_a_loop
async def test_the_store_has_the_clock_before_a_call_is_made_at_its_time(tmp_path: Path) -> None:
    async with machine(str(tmp_path / "timers.db")) as m:
        stored: list[ClockState] = []
        reader = SQLiteTimerStore.open(str(tmp_path / "timers.db"))

        async def answer(_timer_id: int) -> Outcome:
            stored.append(reader.clock_state())
            return OK

        m.receiver.answer = answer
        await m.set(HOUR_MS)
        await m.travel.advance(TENANT, DAY_MS)
        assert stored == [ClockState(0.0, stopped_at=START + HOUR_MS)]
        assert reader.clock_state() == ClockState(DAY_MS)
        reader.close()


@on_a_loop
async def test_a_process_that_ends_during_an_advance_leaves_the_clock_where_it_stood(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "timers.db")
    async with machine(path) as m:

        async def hang(_timer_id: int) -> Outcome:
            await asyncio.Event().wait()
            raise AssertionError

        m.receiver.answer = hang
        await m.set(HOUR_MS)
        advancing = asyncio.create_task(m.travel.advance(TENANT, DAY_MS))
        await until(lambda: m.receiver.calls)
        advancing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await advancing
    async with machine(path) as m:
        assert m.clock() == START + HOUR_MS
        assert m.clock.state.running(m.wall_clock()) == ClockState(HOUR_MS)


@on_a_loop
async def test_the_clock_is_not_moved_while_it_cannot_be_written() -> None:
    async with machine() as m:
        timer_id = await m.set(HOUR_MS)
        m.store._connection.execute("PRAGMA query_only=1")
        advancing = asyncio.create_task(m.travel.advance(TENANT, DAY_MS))
        with pytest.raises(Unavailable):
            await m.writer.submit(m.store.check, durable=True)
        await asyncio.sleep(0.02)
        assert m.clock() == START
        assert m.clock.state == NOT_MOVED
        m.store._connection.execute("PRAGMA query_only=0")
        assert (await advancing).ids(Status.FIRED) == [timer_id]
