"""The pump, which stands in for Lambda's event source and EventBridge's rule on an emulator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.domain.errors import StartupError, Unavailable
from local.emulator.pump import Pump
from tests.support.clock import ManualClock
from tests.support.moto_stage import NAMES, VISIBILITY_S, MotoStage
from tests.support.waiting import PATIENCE_S, eventually


def nothing(*_: object) -> None: ...


@contextmanager
def running(
    stage: MotoStage,
    *,
    deliver: Callable[[Sequence[str]], None] = nothing,
    sweep: Callable[[], object] = nothing,
    catch_up: Callable[[], object] | None = None,
    tick_s: float = 0.02,
    prepare: Callable[[], None] = nothing,
    start_s: float = 0.02,
) -> Iterator[None]:
    stopped = threading.Event()
    pump = Pump(
        stage.sqs,
        NAMES.queue,
        prepare=prepare,
        deliver=deliver,
        sweep=sweep,
        catch_up=catch_up,
        pollers=2,
        poll_s=0,
        tick_s=tick_s,
        pause_s=0.02,
        start_s=start_s,
    )
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(pump.run, stopped)
        try:
            yield
        finally:
            stopped.set()
            done.result(PATIENCE_S)


def put(stage: MotoStage, *bodies: str) -> None:
    for body in bodies:
        stage.sqs.send_message(QueueUrl=stage.queue_url, MessageBody=body)


def test_a_delivered_batch_is_deleted(stage: MotoStage, clock: ManualClock) -> None:
    delivered: list[str] = []
    put(stage, *"abcdefghijkl")

    with running(stage, deliver=delivered.extend):
        assert eventually(lambda: len(delivered) == 12)

    clock.advance(VISIBILITY_S * 1000 + 1)
    assert stage.receive() == []
    assert sorted(delivered) == sorted("abcdefghijkl")


def test_what_was_missed_while_nothing_ran_is_swept_at_the_start_and_soon_again(
    stage: MotoStage,
) -> None:
    swept: list[str] = []

    with running(
        stage,
        sweep=lambda: swept.append("tick"),
        catch_up=lambda: swept.append("catch up"),
        tick_s=60,
    ):
        assert eventually(lambda: len(swept) == 2)

    assert swept == ["catch up", "catch up"], "long before the first tick"


@pytest.mark.parametrize("error", [Unavailable("It is down."), ValueError("a bug")])
def test_a_batch_that_fails_stays_on_the_queue(
    stage: MotoStage, clock: ManualClock, error: Exception
) -> None:
    seen: list[str] = []

    def fail(bodies: Sequence[str]) -> None:
        seen.extend(bodies)
        raise error

    put(stage, "a")
    with running(stage, deliver=fail):
        assert eventually(lambda: seen)

    assert stage.receive() == []
    clock.advance(VISIBILITY_S * 1000 + 1)
    assert [message["Body"] for message in stage.receive()] == ["a"]


def test_a_slow_batch_delays_no_other(stage: MotoStage, clock: ManualClock) -> None:
    released = threading.Event()
    delivered: list[str] = []

    def deliver(bodies: Sequence[str]) -> None:
        if "slow" in bodies:
            released.wait(PATIENCE_S)
        delivered.extend(bodies)

    with running(stage, deliver=deliver):
        put(stage, "slow")
        assert eventually(lambda: stage.wakeups.backlog() == 0)
        clock.advance(1)
        put(stage, "quick")
        assert eventually(lambda: delivered == ["quick"])
        released.set()

    assert delivered == ["quick", "slow"]


def test_a_queue_that_cannot_be_read_for_a_while_is_read_again(stage: MotoStage) -> None:
    delivered: list[str] = []
    put(stage, "a")
    with running(stage, deliver=delivered.extend):
        assert eventually(lambda: delivered)
        stage.fail("ReceiveMessage")
        assert eventually(lambda: stage.calls)
        put(stage, "b")
        stage.heal()
        assert eventually(lambda: delivered == ["a", "b"])


def test_it_sweeps_on_every_tick_and_makes_lost_resources_again(stage: MotoStage) -> None:
    made: list[bool] = []
    sweeps: list[bool] = []

    def sweep() -> None:
        sweeps.append(True)
        if len(sweeps) == 2:
            raise Unavailable("There is no table.")

    with running(stage, sweep=sweep, prepare=lambda: made.append(True)):
        assert eventually(lambda: len(sweeps) >= 4)

    assert len(made) == 2  # at the start, and after the sweep that failed


def test_an_emulator_that_does_not_become_ready_fails_the_start(stage: MotoStage) -> None:
    def refuse() -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    with (
        pytest.raises(StartupError, match=r"127\.0\.0\.1:1.*make emulator"),
        running(stage, prepare=refuse),
    ):
        pass


def test_an_emulator_may_take_some_time_to_become_ready(stage: MotoStage) -> None:
    tries: list[bool] = []
    delivered: list[str] = []

    def prepare() -> None:
        tries.append(True)
        if len(tries) < 3:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    put(stage, "a")
    with running(stage, prepare=prepare, deliver=delivered.extend, start_s=PATIENCE_S):
        assert eventually(lambda: delivered)
