"""The bounds of a worker's connections: clients that do not read are disconnected."""

from __future__ import annotations

import asyncio

import pytest

from local.connections import Connections
from tests.support.loop import on_a_loop, until


class FakeConnection:
    """A connection with some bytes that its client does not read."""

    def __init__(self, unsent_bytes: int = 0) -> None:
        self.unsent_bytes = unsent_bytes
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def stop(self) -> None:
        """Do nothing: a request is in hand."""


def connections(**limits: float) -> Connections:
    chosen = {"check_interval_s": 0.001, "unread_timeout_s": 1_000, "stalled_s": 0} | limits
    return Connections(asyncio.get_running_loop(), 10, **chosen)  # type: ignore[arg-type]


def with_unsent(group: Connections, size: int) -> FakeConnection:
    connection = FakeConnection(size)
    group.add(connection)
    group.unsent(connection)
    return connection


@on_a_loop
async def test_a_client_that_reads_nothing_for_long_is_disconnected() -> None:
    connection = with_unsent(connections(unread_timeout_s=0), 1)
    await until(lambda: connection.aborted)


@on_a_loop
async def test_a_client_that_reads_slowly_is_not_disconnected() -> None:
    group = connections(unread_timeout_s=0)
    connection = with_unsent(group, 1_000)
    for _ in range(20):
        connection.unsent_bytes -= 1
        group._check_progress()
    assert not connection.aborted


@on_a_loop
async def test_clients_that_stopped_reading_make_room_for_others() -> None:
    group = connections(max_unsent_bytes=100)
    stalled = [with_unsent(group, 40), with_unsent(group, 40)]
    assert group.has_room(20)
    assert group.has_room(50)
    assert [each.aborted for each in stalled] == [True, False], "no more than are needed"


@on_a_loop
async def test_clients_that_have_just_begun_to_read_are_not_disconnected() -> None:
    group = connections(max_unsent_bytes=100, stalled_s=1_000)
    reading = with_unsent(group, 60)
    assert not group.has_room(50)
    assert not reading.aborted
    group.sent(reading)
    assert group.has_room(50)


@on_a_loop
async def test_clients_that_read_a_byte_now_and_then_make_room_for_others() -> None:
    group = connections(max_unsent_bytes=100_000, stalled_s=0.01)
    dripping = with_unsent(group, 100_000)
    for _ in range(20):
        dripping.unsent_bytes -= 1
        group._check_progress()
        await asyncio.sleep(0.001)
    assert group.has_room(50_000)
    assert dripping.aborted


@on_a_loop
async def test_clients_that_read_at_a_fair_pace_are_not_disconnected_for_others() -> None:
    group = connections(max_unsent_bytes=100_000_000, stalled_s=0.01)
    reading = with_unsent(group, 100_000_000)
    for _ in range(20):
        reading.unsent_bytes -= 1_000_000
        await asyncio.sleep(0.001)
    assert not group.has_room(90_000_000)
    assert not reading.aborted


@pytest.mark.parametrize("leave", ["closes", "reads all"])
@on_a_loop
async def test_what_a_client_left_unread_is_not_counted_for_ever(leave: str) -> None:
    group = connections(max_unsent_bytes=100)
    connection = with_unsent(group, 100)
    group.remove(connection) if leave == "closes" else group.sent(connection)
    assert group.has_room(100)


@on_a_loop
async def test_the_one_that_waits_for_longest_makes_room_for_a_new_one() -> None:
    group = Connections(asyncio.get_running_loop(), 2)
    first, second, third = FakeConnection(), FakeConnection(), FakeConnection()
    assert group.add(first)
    assert group.add(second)
    group.busy(first)
    group.waits(first)
    assert group.add(third)
    assert [each.aborted for each in (first, second, third)] == [False, True, False]
    assert len(group) == 2


@on_a_loop
async def test_bodies_of_connections_that_have_gone_are_not_counted() -> None:
    group = connections(max_received_bytes=10)
    connection = FakeConnection()
    group.add(connection)
    assert group.received(connection, 6)
    assert group.received(connection, 4)
    assert not group.received(connection, 1)
    group.remove(connection)
    assert group.received(FakeConnection(), 10)
