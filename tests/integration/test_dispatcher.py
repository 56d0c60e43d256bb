"""The dispatcher of the embedded engine, on SQLite in memory and a clock moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.claim import Claimed
from chalicelib.domain.errors import TimerInFlight, TimerNotFound, Unavailable
from chalicelib.domain.timer import NewTimer, Status, Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.dispatcher import CLAIM_BATCH, Dispatcher, DispatcherPolicy
from chalicelib.embedded.egress import EgressLimits
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from tests.support.clock import START, ManualClock
from tests.support.factories import claim_of
from tests.support.loop import on_a_loop, until

TENANT = "default"
LEASE_MS = 30_000
DAY_MS = 86_400_000
DELIVERED = Outcome(status=200)


NAP_S = 0.003
"""How long the dispatcher sleeps at most, so that it notices soon that the clock was moved."""


class FakeAsyncSender:
    """Returns ``outcomes`` by URL, success by default. While ``hold`` is in force, calls hang."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.outcomes: dict[str, Outcome] = {}
        self._open = asyncio.Event()
        self._open.set()

    @property
    def urls(self) -> list[str]:
        return [call.url for call in self.calls]

    @property
    def ids(self) -> list[int]:
        """The timers whose webhooks were sent, in that order."""
        return [int(url.rpartition("/")[2]) for url in self.urls]

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def send(self, call: Call) -> Outcome:
        self.calls.append(call)
        await self._open.wait()
        return self.outcomes.get(call.url, DELIVERED)


@dataclass
class Engine:
    """A dispatcher with its writer, and a sender and a clock that the test controls."""

    writer: Writer
    dispatcher: Dispatcher
    sender: FakeAsyncSender
    clock: ManualClock
    jobs: list[asyncio.Task[None]] = field(default_factory=list)

    def sleep_long(self) -> None:
        """Make every further sleep of the dispatcher last an hour, unless it is woken."""
        policy = self.dispatcher._policy
        self.dispatcher._policy = replace(policy, max_sleep_s=3_600.0)

    def start(self) -> None:
        self.jobs.append(asyncio.create_task(self.dispatcher.run()))

    async def set(self, delay_ms: int, url: str = "http://h", tenant: str = TENANT) -> int:
        """Set a timer as the API does, and tell the dispatcher."""
        due_at = int(self.clock.now) + delay_ms
        new = NewTimer(tenant=tenant, url=url, created_at=int(self.clock.now), due_at=due_at)
        timer = await self.writer.submit(lambda: self.writer.store.create(new), durable=True)
        self.dispatcher.wake_at(tenant, due_at)
        return timer.id

    def get(self, timer_id: int) -> Timer:
        return self.writer.store.get(TENANT, timer_id)

    async def settled(self, timer_id: int) -> Timer:
        await until(lambda: self.get(timer_id).next_attempt_at is None)
        return self.get(timer_id)

    async def attempted(self, timer_id: int, times: int) -> None:
        await until(lambda: self.get(timer_id).attempts == times)

    async def read_clock(self, times: int = 5) -> None:
        """Wait until the dispatcher has read its clock ``times`` times and could have acted."""
        enough = self.clock.reads + times
        await until(lambda: self.clock.reads >= enough)

    def fail_writes(self) -> Callable[[], None]:
        """Make every write fail as on a full disk; return a function that ends it."""
        connection = self.writer.store._connection
        connection.execute("PRAGMA query_only=1")
        return lambda: connection.execute("PRAGMA query_only=0").close()

    def fail_results(self) -> Callable[[], None]:
        """Make only the writes of outcomes fail; return a function that ends it."""
        connection = self.writer.store._connection
        connection.execute(
            "CREATE TEMP TRIGGER full BEFORE UPDATE OF attempts ON timers "
            "BEGIN SELECT raise(FAIL, 'disk full'); END"
        )
        return lambda: connection.execute("DROP TRIGGER full").close()


@asynccontextmanager
async def stopped_engine(path: str | None = None, **policy: Any) -> AsyncIterator[Engine]:
    """Yield an engine whose dispatcher has not started."""
    wanted: dict[str, Any] = {
        "lease_ms": LEASE_MS,
        "retry_delays_s": (5, 60),
        "retention_days": 7.0,
        "egress": EgressLimits(max_in_flight=1_000),
        "max_sleep_s": NAP_S,
        "write_again_s": NAP_S,
    }
    store = SQLiteTimerStore.in_memory() if path is None else SQLiteTimerStore.open(path)
    writer, sender, clock = Writer(store), FakeAsyncSender(), ManualClock()
    dispatcher = Dispatcher(
        writer,
        sender,
        DispatcherPolicy(**wanted | policy),
        clock,
        random=lambda: 0.0,
        token=lambda: secrets.token_hex(8),
    )
    made = Engine(writer, dispatcher, sender, clock)
    try:
        yield made
    finally:
        sender.release()
        await dispatcher.stop(grace_s=1)
        for job in made.jobs:
            job.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await job
        await writer.close()


@asynccontextmanager
async def running(path: str | None = None, **policy: Any) -> AsyncIterator[Engine]:
    """Yield an engine whose dispatcher runs."""
    async with stopped_engine(path, **policy) as made:
        made.start()
        await made.read_clock()
        yield made


# When timers fire


@on_a_loop
async def test_a_timer_fires_when_it_is_due() -> None:
    async with running() as engine:
        timer_id = await engine.set(5_000, "http://h/a?k=v")
        engine.clock.advance(5_000)
        timer = await engine.settled(timer_id)
        assert engine.sender.urls == [f"http://h/a/{timer_id}?k=v"]
        assert (timer.status, timer.attempts) == (Status.FIRED, 1)
        assert timer.settled_at == engine.clock.now
        assert timer.lease is None


@on_a_loop
async def test_a_timer_never_fires_before_it_is_due() -> None:
    async with running() as engine:
        timer_id = await engine.set(5_000)
        for now in (START + 1, START + 2_500, START + 4_999, START + 4_999.999):
            engine.clock.now = now
            await engine.read_clock()
            assert engine.sender.calls == []
        engine.clock.now = START + 5_000
        await engine.settled(timer_id)


@on_a_loop
async def test_a_timer_without_delay_fires_at_once() -> None:
    async with running() as engine:
        await engine.settled(await engine.set(0))


@on_a_loop
async def test_timers_fire_in_the_order_they_are_due() -> None:
    async with running() as engine:
        for delay_ms in (3_000, 1_000, 4_000, 2_000):
            await engine.set(delay_ms)
        engine.clock.advance(60_000)
        await until(lambda: len(engine.sender.calls) == 4)
        assert engine.sender.ids == [2, 4, 1, 3]


@on_a_loop
async def test_more_timers_than_one_batch_fire_in_order_each_once() -> None:
    async with running() as engine:
        count = 3 * CLAIM_BATCH + 1
        await asyncio.gather(*(engine.set(10_000 + number) for number in range(count)))
        engine.clock.advance(60_000)
        engine.sleep_long()
        await until(lambda: len(engine.sender.calls) >= count)
        assert engine.sender.ids == list(range(1, count + 1))


@on_a_loop
async def test_a_timer_fires_once() -> None:
    async with running() as engine:
        timer_id = await engine.set(0)
        await engine.settled(timer_id)
        engine.clock.advance(10 * LEASE_MS)
        await engine.read_clock()
        assert len(engine.sender.calls) == 1


@on_a_loop
async def test_an_earlier_timer_wakes_the_dispatcher_at_once() -> None:
    async with running() as engine:
        await engine.set(3_600_000)
        engine.sleep_long()
        await engine.read_clock(2)
        await asyncio.sleep(0.02)  # asleep for an hour by now, whatever it was doing
        await engine.settled(await engine.set(0))


@on_a_loop
async def test_a_later_timer_does_not_wake_the_dispatcher() -> None:
    async with running() as engine:
        await engine.set(3_600_000)
        engine.sleep_long()
        await engine.read_clock(2)
        await asyncio.sleep(0.02)
        looks = engine.clock.reads
        for _ in range(20):
            await engine.set(7_200_000)
        await asyncio.sleep(0.02)
        assert engine.clock.reads == looks


@on_a_loop
async def test_a_cancelled_timer_does_not_fire() -> None:
    async with running() as engine:
        timer_id = await engine.set(5_000)
        store = engine.writer.store
        await engine.writer.submit(lambda: store.cancel(TENANT, timer_id, START), durable=True)
        engine.clock.advance(60_000)
        await engine.read_clock()
        assert engine.sender.calls == []


@on_a_loop
async def test_a_timer_in_flight_cannot_be_cancelled() -> None:
    async with running() as engine:
        engine.sender.hold()
        timer_id = await engine.set(0)
        await until(lambda: engine.sender.calls)
        with pytest.raises(TimerInFlight):
            engine.writer.store.cancel(TENANT, timer_id, START)


# What the wall clock may do


@on_a_loop
async def test_a_clock_that_is_put_back_makes_no_timer_early() -> None:
    async with running() as engine:
        await engine.set(5_000)
        engine.clock.advance(4_000)
        await engine.read_clock()
        engine.clock.advance(-3_600_000)
        await engine.read_clock()
        engine.clock.advance(3_600_000 + 999)
        await engine.read_clock()
        assert engine.sender.calls == []
        engine.clock.advance(1)
        await until(lambda: engine.sender.calls)


@on_a_loop
async def test_a_clock_that_is_put_back_makes_no_timer_fire_twice() -> None:
    async with running() as engine:
        timer_id = await engine.set(5_000)
        engine.clock.advance(5_000)
        await engine.settled(timer_id)
        engine.clock.advance(-3_600_000)
        await engine.read_clock()
        engine.clock.advance(7_200_000)
        await engine.read_clock()
        assert len(engine.sender.calls) == 1


@on_a_loop
async def test_a_clock_put_back_while_a_webhook_is_in_flight_sends_it_once() -> None:
    async with running() as engine:
        engine.sender.hold()
        timer_id = await engine.set(5_000)
        engine.clock.advance(5_000)
        await until(lambda: engine.sender.calls)
        engine.clock.advance(-3_600_000)
        engine.sender.release()
        assert (await engine.settled(timer_id)).status is Status.FIRED
        engine.clock.advance(7_200_000)
        await engine.read_clock()
        assert len(engine.sender.calls) == 1


@on_a_loop
async def test_a_clock_that_jumps_over_a_lease_sends_nothing_twice() -> None:
    async with running() as engine:
        engine.sender.hold()
        timer_id = await engine.set(0)
        await until(lambda: engine.sender.calls)
        engine.clock.advance(LEASE_MS + 3_600_000)
        await engine.read_clock()
        assert len(engine.sender.calls) == 1
        engine.sender.release()
        assert (await engine.settled(timer_id)).status is Status.FIRED


@on_a_loop
async def test_after_a_clock_jump_over_a_lease_in_flight_other_timers_fire_on_time() -> None:
    async with running() as engine:
        engine.sender.hold()
        for _ in range(5):
            await engine.set(0)
        await until(lambda: len(engine.sender.calls) == 5)
        engine.clock.advance(LEASE_MS + 3_600_000)
        await engine.set(1_000)
        engine.clock.advance(999)
        await engine.read_clock()
        assert len(engine.sender.calls) == 5
        engine.clock.advance(1)
        await until(lambda: engine.sender.ids[5:] == [6])


@on_a_loop
async def test_a_clock_jump_over_a_lease_in_flight_does_not_keep_the_processor_busy() -> None:
    async with running() as engine:
        engine.sender.hold()
        await engine.set(0)
        await until(lambda: engine.sender.calls)
        engine.clock.advance(LEASE_MS + 1)
        looks = engine.clock.reads
        await asyncio.sleep(0.1)
        assert engine.clock.reads - looks < 200


# Consequences of an outcome


@pytest.mark.parametrize(
    "outcome", [Outcome(status=500), Outcome(status=302), Outcome(error="refused")]
)
def test_a_failure_is_tried_again_at_the_time_decided(outcome: Outcome) -> None:
    async def scenario() -> None:
        async with running() as engine:
            engine.sender.outcomes["http://h/1"] = outcome
            timer_id = await engine.set(0)
            await engine.attempted(timer_id, 1)
            timer = engine.get(timer_id)
            assert (timer.status, timer.version) == (Status.PENDING, 2)
            assert timer.next_attempt_at == START + 5_000
            assert timer.due_at == START
            engine.clock.advance(4_999)
            await engine.read_clock()
            assert len(engine.sender.calls) == 1
            engine.sender.outcomes.clear()
            engine.clock.advance(1)
            timer = await engine.settled(timer_id)
            assert (timer.status, timer.attempts) == (Status.FIRED, 2)

    asyncio.run(scenario())


@on_a_loop
async def test_every_attempt_carries_the_same_id_and_its_own_time() -> None:
    async with running() as engine:
        engine.sender.outcomes["http://h/1"] = Outcome(status=500)
        await engine.set(0)
        await engine.attempted(1, 1)
        engine.clock.advance(5_000)
        await engine.attempted(1, 2)
        first, second = (call.headers for call in engine.sender.calls)
        assert first["webhook-id"] == second["webhook-id"]
        assert first["webhook-id"].startswith(engine.writer.store.identity())
        assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 5


@on_a_loop
async def test_a_retry_wakes_the_dispatcher_in_time() -> None:
    async with running(retry_delays_s=(0.01,)) as engine:
        engine.sleep_long()
        engine.sender.outcomes["http://h/1"] = Outcome(status=500)
        engine.sender.hold()
        await engine.set(0)
        await until(lambda: engine.sender.calls)
        await asyncio.sleep(0.02)
        engine.sender.release()
        engine.clock.advance(10)
        await engine.attempted(1, 1)
        engine.clock.advance(10)
        assert (await engine.settled(1)).status is Status.FAILED


@on_a_loop
async def test_a_receiver_that_is_gone_fails_the_timer_at_once() -> None:
    async with running() as engine:
        engine.sender.outcomes["http://h/1"] = Outcome(status=410)
        timer = await engine.settled(await engine.set(0))
        assert (timer.status, timer.attempts) == (Status.FAILED, 1)


@on_a_loop
async def test_a_timer_fails_when_its_attempts_are_used_up() -> None:
    async with running(retry_delays_s=(5, 60)) as engine:
        engine.sender.outcomes["http://h/1"] = Outcome(status=503)
        await engine.set(0)
        for attempt, delay_ms in enumerate((5_000, 60_000), start=1):
            await engine.attempted(1, attempt)
            engine.clock.advance(delay_ms)
        timer = await engine.settled(1)
        assert (timer.status, timer.attempts) == (Status.FAILED, 3)
        engine.clock.advance(DAY_MS)
        await engine.read_clock()
        assert len(engine.sender.calls) == 3


@on_a_loop
async def test_a_stored_url_that_cannot_be_called_is_a_failed_attempt_and_delays_no_other() -> None:
    async with running(retry_delays_s=()) as engine:
        await engine.set(0, "gopher://h")
        await engine.set(0)
        assert (await engine.settled(1)).status is Status.FAILED
        assert (await engine.settled(2)).status is Status.FIRED
        assert engine.sender.ids == [2]


@on_a_loop
async def test_a_hanging_receiver_delays_no_other_timer() -> None:
    async with running() as engine:
        engine.sender.hold()
        for _ in range(50):
            await engine.set(0)
        await until(lambda: len(engine.sender.calls) == 50)
        await engine.set(1_000)
        engine.clock.advance(1_000)
        await until(lambda: len(engine.sender.calls) == 51)


# When the disk is full


@on_a_loop
async def test_nothing_is_sent_while_the_store_cannot_be_written() -> None:
    async with running() as engine:
        timer_id = await engine.set(5_000)
        make_room = engine.fail_writes()
        engine.clock.advance(5_000)
        await engine.read_clock(10)
        assert engine.sender.calls == []
        make_room()
        assert (await engine.settled(timer_id)).status is Status.FIRED


@on_a_loop
async def test_a_result_is_kept_until_it_can_be_written() -> None:
    async with running() as engine:
        engine.sender.hold()
        timer_id = await engine.set(0)
        await until(lambda: engine.sender.calls)
        make_room = engine.fail_writes()
        engine.sender.release()
        await engine.read_clock(10)
        assert engine.get(timer_id).status is Status.PENDING
        engine.clock.advance(LEASE_MS + 1)
        await engine.read_clock(10)
        make_room()
        timer = await engine.settled(timer_id)
        assert (timer.status, timer.attempts) == (Status.FIRED, 1)
        assert len(engine.sender.calls) == 1


@on_a_loop
async def test_nothing_is_claimed_while_a_result_waits_to_be_written() -> None:
    async with running(write_again_s=0.1) as engine:  # seldom in a claim's group
        await engine.set(1_000)
        await engine.set(2_000)
        make_room = engine.fail_results()
        engine.clock.advance(1_000)
        await until(lambda: engine.sender.ids == [1])
        await engine.read_clock(10)
        engine.clock.advance(1_000)
        await engine.read_clock(10)
        assert engine.sender.ids == [1]
        make_room()
        await engine.settled(1)
        await engine.settled(2)
        assert engine.sender.ids == [1, 2]


@on_a_loop
async def test_at_its_start_the_dispatcher_waits_for_a_store_that_can_be_written() -> None:
    async with stopped_engine() as made:
        await made.set(0)
        make_room = made.fail_writes()
        made.start()
        await asyncio.sleep(0.02)
        assert made.sender.calls == []
        make_room()
        await made.settled(1)


# How many at a time


@on_a_loop
async def test_no_more_calls_than_the_limit_are_in_flight() -> None:
    async with running(egress=EgressLimits(max_in_flight=2)) as engine:
        engine.sender.hold()
        for _ in range(5):
            await engine.set(0)
        await until(lambda: len(engine.sender.calls) == 2)
        await engine.read_clock()
        assert len(engine.sender.calls) == 2
        assert [engine.get(number).lease is None for number in range(1, 6)] == [
            False,
            False,
            True,
            True,
            True,
        ]


@on_a_loop
async def test_a_free_place_is_taken_at_once() -> None:
    async with running(egress=EgressLimits(max_in_flight=2)) as engine:
        engine.sender.hold()
        for _ in range(7):
            await engine.set(0)
        await until(lambda: len(engine.sender.calls) == 2)
        engine.sleep_long()
        await asyncio.sleep(0.02)
        engine.sender.release()
        await until(lambda: len(engine.sender.calls) == 7)
        assert engine.sender.ids == list(range(1, 8))


# Start and stop


@on_a_loop
async def test_timers_missed_while_the_dispatcher_was_down_fire_at_its_start() -> None:
    async with stopped_engine() as made:
        await made.set(1_000)
        await made.set(DAY_MS)
        made.clock.advance(DAY_MS - 1)
        made.start()
        await made.settled(1)
        await made.read_clock()
        assert made.sender.ids == [1]


@on_a_loop
async def test_the_leases_of_a_process_that_died_are_void_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "timers.db")
    async with stopped_engine(path) as dead:
        await dead.set(0)
        claim = claim_of(dead.get(1).wakeup(), "dead", now=START)
        assert isinstance(dead.writer.store.claim(claim), Claimed)
    async with running(path) as engine:
        timer = await engine.settled(1)
        assert (timer.status, timer.attempts) == (Status.FIRED, 1)


@on_a_loop
async def test_stopping_waits_for_calls_in_flight() -> None:
    async with running() as engine:
        engine.sender.hold()
        await engine.set(0)
        await until(lambda: engine.sender.calls)
        stopping = asyncio.create_task(engine.dispatcher.stop(grace_s=60))
        await asyncio.sleep(0.01)
        assert not stopping.done()
        engine.sender.release()
        await stopping
        assert engine.get(1).status is Status.FIRED


@on_a_loop
async def test_nothing_new_is_claimed_while_stopping() -> None:
    async with running() as engine:
        engine.sender.hold()
        await engine.set(0)
        await until(lambda: engine.sender.calls)
        stopping = asyncio.create_task(engine.dispatcher.stop(grace_s=60))
        await asyncio.sleep(0)
        await engine.set(0)
        await asyncio.sleep(0.02)
        engine.sender.release()
        await stopping
        assert engine.sender.ids == [1]
        assert engine.get(2).lease is None


@on_a_loop
async def test_a_call_that_does_not_finish_while_stopping_stays_outstanding() -> None:
    async with running() as engine:
        engine.sender.hold()
        await engine.set(0)
        await until(lambda: engine.sender.calls)
        await engine.dispatcher.stop(grace_s=0.01)
        await asyncio.sleep(0)
        timer = engine.get(1)
        assert (timer.status, timer.next_attempt_at) == (Status.PENDING, START)


@on_a_loop
async def test_stopping_ends_the_run() -> None:
    async with running() as engine:
        await engine.set(3_600_000)
        await engine.dispatcher.stop(grace_s=1)
        await asyncio.wait_for(engine.jobs[0], 1)


@on_a_loop
async def test_a_timer_that_cannot_be_signed_now_is_called_once_its_lease_is_over() -> None:
    keys: list[tuple[bytes, ...]] = []

    def read_keys() -> tuple[bytes, ...]:
        if not keys:
            raise Unavailable("The keys are away.")
        return keys[0]

    async with running(signing_keys=read_keys) as engine:
        timer_id = await engine.set(0)
        await until(lambda: engine.get(timer_id).lease is not None)
        await engine.read_clock()
        assert engine.sender.calls == []
        keys.append(())
        engine.clock.advance(LEASE_MS)
        assert (await engine.settled(timer_id)).status is Status.FIRED


# Keeping house


@on_a_loop
async def test_settled_timers_are_removed_after_their_retention() -> None:
    async with running(retention_days=1.0) as engine:
        engine.jobs.append(asyncio.create_task(engine.dispatcher.maintain_store()))
        await engine.settled(await engine.set(0))
        await engine.set(3 * DAY_MS)
        engine.clock.advance(DAY_MS)
        await engine.read_clock()
        assert engine.get(1).status is Status.FIRED
        engine.clock.advance(1)
        await until(lambda: gone(engine, 1))
        assert engine.get(2).status is Status.PENDING


@on_a_loop
async def test_settled_timers_are_removed_after_a_full_disk_too() -> None:
    async with running(retention_days=1.0) as engine:
        engine.jobs.append(asyncio.create_task(engine.dispatcher.maintain_store()))
        await engine.settled(await engine.set(0))
        make_room = engine.fail_writes()
        engine.clock.advance(DAY_MS + 1)
        await engine.read_clock()
        assert not gone(engine, 1)
        make_room()
        await until(lambda: gone(engine, 1))


def gone(engine: Engine, timer_id: int) -> bool:
    try:
        engine.get(timer_id)
    except TimerNotFound:
        return True
    return False
