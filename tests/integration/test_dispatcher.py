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
    """A sender whose answers the test gives, at once unless it holds them back."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, Outcome] = {}
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

    def let_go(self) -> None:
        self._open.set()

    async def send(self, call: Call) -> Outcome:
        self.calls.append(call)
        await self._open.wait()
        return self.answers.get(call.url, DELIVERED)


@dataclass
class Engine:
    """A dispatcher at work, and all around it that a test moves."""

    writer: Writer
    dispatcher: Dispatcher
    sender: FakeAsyncSender
    clock: ManualClock
    jobs: list[asyncio.Task[None]] = field(default_factory=list)

    def sleep_long(self) -> None:
        """Let the dispatcher sleep for an hour from its next sleep on, unless it is woken."""
        policy = self.dispatcher._policy
        self.dispatcher._policy = replace(policy, max_sleep_s=3_600.0)

    def start(self) -> None:
        self.jobs.append(asyncio.create_task(self.dispatcher.run()))

    async def set(self, delay_ms: int, url: str = "http://h") -> int:
        """Set a timer as the API does, and tell the dispatcher."""
        due_at = int(self.clock.now) + delay_ms
        new = NewTimer(tenant=TENANT, url=url, created_at=int(self.clock.now), due_at=due_at)
        timer = await self.writer.submit(lambda: self.writer.store.create(new), durable=True)
        self.dispatcher.wake_at(due_at)
        return timer.id

    def get(self, timer_id: int) -> Timer:
        return self.writer.store.get(TENANT, timer_id)

    async def settled(self, timer_id: int) -> Timer:
        await until(lambda: self.get(timer_id).next_attempt_at is None)
        return self.get(timer_id)

    async def attempted(self, timer_id: int, times: int) -> None:
        await until(lambda: self.get(timer_id).attempts == times)

    async def looked(self, times: int = 5) -> None:
        """Let the dispatcher look at its clock a few times: it may act on what it sees."""
        enough = self.clock.reads + times
        await until(lambda: self.clock.reads >= enough)

    def fail_writes(self) -> Callable[[], None]:
        """Let every write fail as on a full disk; return what makes them succeed again."""
        connection = self.writer.store._connection
        connection.execute("PRAGMA query_only=1")
        return lambda: connection.execute("PRAGMA query_only=0").close()

    def fail_results(self) -> Callable[[], None]:
        """Let results alone fail to be written; return what makes them succeed again."""
        connection = self.writer.store._connection
        connection.execute(
            "CREATE TEMP TRIGGER full BEFORE UPDATE OF attempts ON timers "
            "BEGIN SELECT raise(FAIL, 'disk full'); END"
        )
        return lambda: connection.execute("DROP TRIGGER full").close()


@asynccontextmanager
async def engine(path: str | None = None, **policy: Any) -> AsyncIterator[Engine]:
    """Yield an engine whose dispatcher is yet to start."""
    wanted: dict[str, Any] = {
        "lease_ms": LEASE_MS,
        "retry_delays_s": (5, 60),
        "retention_days": 7.0,
        "max_in_flight": 1_000,
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
        sender.let_go()
        await dispatcher.stop(grace_s=1)
        for job in made.jobs:
            job.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await job
        await writer.close()


@asynccontextmanager
async def running(path: str | None = None, **policy: Any) -> AsyncIterator[Engine]:
    """Yield an engine at work."""
    async with engine(path, **policy) as made:
        made.start()
        await made.looked()
        yield made


# When timers fire


@on_a_loop
async def test_a_timer_fires_when_it_is_due() -> None:
    async with running() as at_work:
        timer_id = await at_work.set(5_000, "http://h/a?k=v")
        at_work.clock.advance(5_000)
        timer = await at_work.settled(timer_id)
        assert at_work.sender.urls == [f"http://h/a/{timer_id}?k=v"]
        assert (timer.status, timer.attempts) == (Status.FIRED, 1)
        assert timer.settled_at == at_work.clock.now
        assert timer.lease is None


@on_a_loop
async def test_a_timer_never_fires_before_it_is_due() -> None:
    async with running() as at_work:
        timer_id = await at_work.set(5_000)
        for now in (START + 1, START + 2_500, START + 4_999, START + 4_999.999):
            at_work.clock.now = now
            await at_work.looked()
            assert at_work.sender.calls == []
        at_work.clock.now = START + 5_000
        await at_work.settled(timer_id)


@on_a_loop
async def test_a_timer_without_delay_fires_at_once() -> None:
    async with running() as at_work:
        await at_work.settled(await at_work.set(0))


@on_a_loop
async def test_timers_fire_in_the_order_they_are_due() -> None:
    async with running() as at_work:
        for delay_ms in (3_000, 1_000, 4_000, 2_000):
            await at_work.set(delay_ms)
        at_work.clock.advance(60_000)
        await until(lambda: len(at_work.sender.calls) == 4)
        assert at_work.sender.ids == [2, 4, 1, 3]


@on_a_loop
async def test_more_timers_than_one_batch_fire_in_order_each_once() -> None:
    async with running() as at_work:
        count = 3 * CLAIM_BATCH + 1
        await asyncio.gather(*(at_work.set(10_000 + number) for number in range(count)))
        at_work.clock.advance(60_000)
        at_work.sleep_long()
        await until(lambda: len(at_work.sender.calls) >= count)
        assert at_work.sender.ids == list(range(1, count + 1))


@on_a_loop
async def test_a_timer_fires_once() -> None:
    async with running() as at_work:
        timer_id = await at_work.set(0)
        await at_work.settled(timer_id)
        at_work.clock.advance(10 * LEASE_MS)
        await at_work.looked()
        assert len(at_work.sender.calls) == 1


@on_a_loop
async def test_an_earlier_timer_wakes_the_dispatcher_at_once() -> None:
    async with running() as at_work:
        await at_work.set(3_600_000)
        at_work.sleep_long()
        await at_work.looked(2)
        await asyncio.sleep(0.02)  # asleep for an hour by now, whatever it was doing
        await at_work.settled(await at_work.set(0))


@on_a_loop
async def test_a_later_timer_does_not_disturb_the_dispatcher() -> None:
    async with running() as at_work:
        await at_work.set(3_600_000)
        at_work.sleep_long()
        await at_work.looked(2)
        await asyncio.sleep(0.02)
        looks = at_work.clock.reads
        for _ in range(20):
            await at_work.set(7_200_000)
        await asyncio.sleep(0.02)
        assert at_work.clock.reads == looks


@on_a_loop
async def test_a_cancelled_timer_does_not_fire() -> None:
    async with running() as at_work:
        timer_id = await at_work.set(5_000)
        store = at_work.writer.store
        await at_work.writer.submit(lambda: store.cancel(TENANT, timer_id, START), durable=True)
        at_work.clock.advance(60_000)
        await at_work.looked()
        assert at_work.sender.calls == []


@on_a_loop
async def test_a_timer_on_the_wire_cannot_be_cancelled() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        timer_id = await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        with pytest.raises(TimerInFlight):
            at_work.writer.store.cancel(TENANT, timer_id, START)


# What the wall clock may do


@on_a_loop
async def test_a_clock_that_is_put_back_makes_no_timer_early() -> None:
    async with running() as at_work:
        await at_work.set(5_000)
        at_work.clock.advance(4_000)
        await at_work.looked()
        at_work.clock.advance(-3_600_000)
        await at_work.looked()
        at_work.clock.advance(3_600_000 + 999)
        await at_work.looked()
        assert at_work.sender.calls == []
        at_work.clock.advance(1)
        await until(lambda: at_work.sender.calls)


@on_a_loop
async def test_a_clock_that_is_put_back_makes_no_timer_fire_twice() -> None:
    async with running() as at_work:
        timer_id = await at_work.set(5_000)
        at_work.clock.advance(5_000)
        await at_work.settled(timer_id)
        at_work.clock.advance(-3_600_000)
        await at_work.looked()
        at_work.clock.advance(7_200_000)
        await at_work.looked()
        assert len(at_work.sender.calls) == 1


@on_a_loop
async def test_a_clock_put_back_while_a_webhook_is_on_the_wire_sends_it_once() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        timer_id = await at_work.set(5_000)
        at_work.clock.advance(5_000)
        await until(lambda: at_work.sender.calls)
        at_work.clock.advance(-3_600_000)
        at_work.sender.let_go()
        assert (await at_work.settled(timer_id)).status is Status.FIRED
        at_work.clock.advance(7_200_000)
        await at_work.looked()
        assert len(at_work.sender.calls) == 1


@on_a_loop
async def test_a_clock_that_leaps_over_a_lease_sends_nothing_twice() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        timer_id = await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        at_work.clock.advance(LEASE_MS + 3_600_000)
        await at_work.looked()
        assert len(at_work.sender.calls) == 1
        at_work.sender.let_go()
        assert (await at_work.settled(timer_id)).status is Status.FIRED


@on_a_loop
async def test_others_fire_on_time_while_a_leapt_over_lease_is_on_the_wire() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        for _ in range(5):
            await at_work.set(0)
        await until(lambda: len(at_work.sender.calls) == 5)
        at_work.clock.advance(LEASE_MS + 3_600_000)
        await at_work.set(1_000)
        at_work.clock.advance(999)
        await at_work.looked()
        assert len(at_work.sender.calls) == 5
        at_work.clock.advance(1)
        await until(lambda: at_work.sender.ids[5:] == [6])


@on_a_loop
async def test_a_leapt_over_lease_on_the_wire_does_not_keep_the_processor_busy() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        at_work.clock.advance(LEASE_MS + 1)
        looks = at_work.clock.reads
        await asyncio.sleep(0.1)
        assert at_work.clock.reads - looks < 200


# What follows from an answer


@pytest.mark.parametrize(
    "outcome", [Outcome(status=500), Outcome(status=302), Outcome(error="refused")]
)
def test_a_failure_is_tried_again_at_the_time_decided(outcome: Outcome) -> None:
    async def scenario() -> None:
        async with running() as at_work:
            at_work.sender.answers["http://h/1"] = outcome
            timer_id = await at_work.set(0)
            await at_work.attempted(timer_id, 1)
            timer = at_work.get(timer_id)
            assert (timer.status, timer.version) == (Status.PENDING, 2)
            assert timer.next_attempt_at == START + 5_000
            assert timer.due_at == START
            at_work.clock.advance(4_999)
            await at_work.looked()
            assert len(at_work.sender.calls) == 1
            at_work.sender.answers.clear()
            at_work.clock.advance(1)
            timer = await at_work.settled(timer_id)
            assert (timer.status, timer.attempts) == (Status.FIRED, 2)

    asyncio.run(scenario())


@on_a_loop
async def test_every_attempt_carries_the_same_id_and_its_own_time() -> None:
    async with running() as at_work:
        at_work.sender.answers["http://h/1"] = Outcome(status=500)
        await at_work.set(0)
        await at_work.attempted(1, 1)
        at_work.clock.advance(5_000)
        await at_work.attempted(1, 2)
        first, second = (call.headers for call in at_work.sender.calls)
        assert first["webhook-id"] == second["webhook-id"]
        assert first["webhook-id"].startswith(at_work.writer.store.identity())
        assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 5


@on_a_loop
async def test_a_retry_wakes_the_dispatcher_in_time() -> None:
    async with running(retry_delays_s=(0.01,)) as at_work:
        at_work.sleep_long()
        at_work.sender.answers["http://h/1"] = Outcome(status=500)
        at_work.sender.hold()
        await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        await asyncio.sleep(0.02)
        at_work.sender.let_go()
        at_work.clock.advance(10)
        await at_work.attempted(1, 1)
        at_work.clock.advance(10)
        assert (await at_work.settled(1)).status is Status.FAILED


@on_a_loop
async def test_a_receiver_that_is_gone_fails_the_timer_at_once() -> None:
    async with running() as at_work:
        at_work.sender.answers["http://h/1"] = Outcome(status=410)
        timer = await at_work.settled(await at_work.set(0))
        assert (timer.status, timer.attempts) == (Status.FAILED, 1)


@on_a_loop
async def test_a_timer_fails_when_its_attempts_are_used_up() -> None:
    async with running(retry_delays_s=(5, 60)) as at_work:
        at_work.sender.answers["http://h/1"] = Outcome(status=503)
        await at_work.set(0)
        for attempt, delay_ms in enumerate((5_000, 60_000), start=1):
            await at_work.attempted(1, attempt)
            at_work.clock.advance(delay_ms)
        timer = await at_work.settled(1)
        assert (timer.status, timer.attempts) == (Status.FAILED, 3)
        at_work.clock.advance(DAY_MS)
        await at_work.looked()
        assert len(at_work.sender.calls) == 3


@on_a_loop
async def test_a_stored_url_that_cannot_be_called_is_a_failed_attempt_and_hurts_nobody() -> None:
    async with running(retry_delays_s=()) as at_work:
        await at_work.set(0, "gopher://h")
        await at_work.set(0)
        assert (await at_work.settled(1)).status is Status.FAILED
        assert (await at_work.settled(2)).status is Status.FIRED
        assert at_work.sender.ids == [2]


@on_a_loop
async def test_a_hanging_receiver_delays_nobody() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        for _ in range(50):
            await at_work.set(0)
        await until(lambda: len(at_work.sender.calls) == 50)
        await at_work.set(1_000)
        at_work.clock.advance(1_000)
        await until(lambda: len(at_work.sender.calls) == 51)


# When the disk is full


@on_a_loop
async def test_nothing_is_sent_while_nothing_can_be_written() -> None:
    async with running() as at_work:
        timer_id = await at_work.set(5_000)
        make_room = at_work.fail_writes()
        at_work.clock.advance(5_000)
        await at_work.looked(10)
        assert at_work.sender.calls == []
        make_room()
        assert (await at_work.settled(timer_id)).status is Status.FIRED


@on_a_loop
async def test_a_result_is_kept_until_it_can_be_written() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        timer_id = await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        make_room = at_work.fail_writes()
        at_work.sender.let_go()
        await at_work.looked(10)
        assert at_work.get(timer_id).status is Status.PENDING
        at_work.clock.advance(LEASE_MS + 1)
        await at_work.looked(10)
        make_room()
        timer = await at_work.settled(timer_id)
        assert (timer.status, timer.attempts) == (Status.FIRED, 1)
        assert len(at_work.sender.calls) == 1


@on_a_loop
async def test_nothing_is_claimed_while_a_result_waits_to_be_written() -> None:
    async with running(write_again_s=0.1) as at_work:  # seldom in a claim's group
        await at_work.set(1_000)
        await at_work.set(2_000)
        make_room = at_work.fail_results()
        at_work.clock.advance(1_000)
        await until(lambda: at_work.sender.ids == [1])
        await at_work.looked(10)
        at_work.clock.advance(1_000)
        await at_work.looked(10)
        assert at_work.sender.ids == [1]
        make_room()
        await at_work.settled(1)
        await at_work.settled(2)
        assert at_work.sender.ids == [1, 2]


@on_a_loop
async def test_a_store_that_cannot_be_written_at_the_start_is_waited_for() -> None:
    async with engine() as made:
        await made.set(0)
        make_room = made.fail_writes()
        made.start()
        await asyncio.sleep(0.02)
        assert made.sender.calls == []
        make_room()
        await made.settled(1)


# How many at a time


@on_a_loop
async def test_no_more_than_the_limit_are_on_the_wire() -> None:
    async with running(max_in_flight=2) as at_work:
        at_work.sender.hold()
        for _ in range(5):
            await at_work.set(0)
        await until(lambda: len(at_work.sender.calls) == 2)
        await at_work.looked()
        assert len(at_work.sender.calls) == 2
        assert [at_work.get(number).lease is None for number in range(1, 6)] == [
            False,
            False,
            True,
            True,
            True,
        ]


@on_a_loop
async def test_a_place_that_gets_free_is_taken_at_once() -> None:
    async with running(max_in_flight=2) as at_work:
        at_work.sender.hold()
        for _ in range(7):
            await at_work.set(0)
        await until(lambda: len(at_work.sender.calls) == 2)
        at_work.sleep_long()
        await asyncio.sleep(0.02)
        at_work.sender.let_go()
        await until(lambda: len(at_work.sender.calls) == 7)
        assert at_work.sender.ids == list(range(1, 8))


# Start and stop


@on_a_loop
async def test_what_was_missed_while_nobody_ran_fires_at_the_start() -> None:
    async with engine() as made:
        await made.set(1_000)
        await made.set(DAY_MS)
        made.clock.advance(DAY_MS - 1)
        made.start()
        await made.settled(1)
        await made.looked()
        assert made.sender.ids == [1]


@on_a_loop
async def test_the_leases_of_a_process_that_died_are_void_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "timers.db")
    async with engine(path) as dead:
        await dead.set(0)
        claim = claim_of(dead.get(1).wakeup(), "dead", now=START)
        assert isinstance(dead.writer.store.claim(claim), Claimed)
    async with running(path) as at_work:
        timer = await at_work.settled(1)
        assert (timer.status, timer.attempts) == (Status.FIRED, 1)


@on_a_loop
async def test_stopping_waits_for_what_is_on_the_wire() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        stopping = asyncio.create_task(at_work.dispatcher.stop(grace_s=60))
        await asyncio.sleep(0.01)
        assert not stopping.done()
        at_work.sender.let_go()
        await stopping
        assert at_work.get(1).status is Status.FIRED


@on_a_loop
async def test_nothing_new_is_claimed_while_stopping() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        stopping = asyncio.create_task(at_work.dispatcher.stop(grace_s=60))
        await asyncio.sleep(0)
        await at_work.set(0)
        await asyncio.sleep(0.02)
        at_work.sender.let_go()
        await stopping
        assert at_work.sender.ids == [1]
        assert at_work.get(2).lease is None


@on_a_loop
async def test_what_does_not_finish_while_stopping_stays_outstanding() -> None:
    async with running() as at_work:
        at_work.sender.hold()
        await at_work.set(0)
        await until(lambda: at_work.sender.calls)
        await at_work.dispatcher.stop(grace_s=0.01)
        await asyncio.sleep(0)
        timer = at_work.get(1)
        assert (timer.status, timer.next_attempt_at) == (Status.PENDING, START)


@on_a_loop
async def test_stopping_ends_the_run() -> None:
    async with running() as at_work:
        await at_work.set(3_600_000)
        await at_work.dispatcher.stop(grace_s=1)
        await asyncio.wait_for(at_work.jobs[0], 1)


@on_a_loop
async def test_a_timer_that_cannot_be_signed_now_is_called_once_its_lease_is_over() -> None:
    keys: list[tuple[bytes, ...]] = []

    def read_keys() -> tuple[bytes, ...]:
        if not keys:
            raise Unavailable("The keys are away.")
        return keys[0]

    async with running(signing_keys=read_keys) as at_work:
        timer_id = await at_work.set(0)
        await until(lambda: at_work.get(timer_id).lease is not None)
        await at_work.looked()
        assert at_work.sender.calls == []
        keys.append(())
        at_work.clock.advance(LEASE_MS)
        assert (await at_work.settled(timer_id)).status is Status.FIRED


# Keeping house


@on_a_loop
async def test_settled_timers_are_removed_after_their_retention() -> None:
    async with running(retention_days=1.0) as at_work:
        at_work.jobs.append(asyncio.create_task(at_work.dispatcher.keep_house()))
        await at_work.settled(await at_work.set(0))
        await at_work.set(3 * DAY_MS)
        at_work.clock.advance(DAY_MS)
        await at_work.looked()
        assert at_work.get(1).status is Status.FIRED
        at_work.clock.advance(1)
        await until(lambda: gone(at_work, 1))
        assert at_work.get(2).status is Status.PENDING


@on_a_loop
async def test_keeping_house_goes_on_after_a_full_disk() -> None:
    async with running(retention_days=1.0) as at_work:
        at_work.jobs.append(asyncio.create_task(at_work.dispatcher.keep_house()))
        await at_work.settled(await at_work.set(0))
        make_room = at_work.fail_writes()
        at_work.clock.advance(DAY_MS + 1)
        await at_work.looked()
        assert not gone(at_work, 1)
        make_room()
        await until(lambda: gone(at_work, 1))


def gone(at_work: Engine, timer_id: int) -> bool:
    try:
        at_work.get(timer_id)
    except TimerNotFound:
        return True
    return False
