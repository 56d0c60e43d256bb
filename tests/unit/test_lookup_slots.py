"""Look-ups at once: each tenant has a share, and tenants take turns."""

from __future__ import annotations

import asyncio

from chalicelib.embedded.sender.lookup_slots import LookupSlots
from tests.support.loop import on_a_loop

ANN, BOB = "ann", "bob"


async def wanting(slots: LookupSlots, tenant: str, count: int) -> list[asyncio.Task[None]]:
    """Ask for ``count`` slots, and let those that are free be taken."""
    tasks = [asyncio.create_task(slots.acquire(tenant)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def granted(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() for task in tasks)


@on_a_loop
async def test_a_tenant_whose_names_hang_leaves_look_ups_for_others() -> None:
    slots = LookupSlots(100, 0.5)

    anns = await wanting(slots, ANN, 90)
    bobs = await wanting(slots, BOB, 1)

    assert (granted(anns), granted(bobs)) == (50, 1)
    await cancel(anns)


@on_a_loop
async def test_a_tenant_that_waits_gets_its_next_slot_when_one_is_free() -> None:
    slots = LookupSlots(10, 1.0)
    tasks = await wanting(slots, ANN, 12)
    assert granted(tasks) == 10

    slots.release(ANN)
    await asyncio.sleep(0)

    assert granted(tasks) == 11
    await cancel(tasks)


@on_a_loop
async def test_tenants_that_wait_take_turns() -> None:
    slots = LookupSlots(10, 1.0)
    await wanting(slots, "first", 10)
    anns, bobs = await wanting(slots, ANN, 5), await wanting(slots, BOB, 2)

    for _ in range(4):
        slots.release("first")
    await asyncio.sleep(0)

    assert (granted(anns), granted(bobs)) == (2, 2)
    await cancel(anns)


@on_a_loop
async def test_a_wait_that_was_given_up_takes_no_slot() -> None:
    slots = LookupSlots(10, 1.0)
    await wanting(slots, ANN, 10)
    (gone,), (next_one,) = await wanting(slots, ANN, 1), await wanting(slots, ANN, 1)
    await cancel([gone])

    slots.release(ANN)
    await asyncio.sleep(0)

    assert next_one.done()


@on_a_loop
async def test_a_slot_that_came_with_the_end_of_the_wait_goes_to_the_next() -> None:
    slots = LookupSlots(10, 1.0)
    await wanting(slots, ANN, 10)
    (gone,), (next_one,) = await wanting(slots, ANN, 1), await wanting(slots, ANN, 1)

    slots.release(ANN)
    await cancel([gone])

    assert next_one.done()


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
