"""Name look-ups of the sender: each runs on a thread, and every address is checked."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import functools
import queue
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from aiohappyeyeballs import AddrInfoType

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.ssrf_guard import MAX_ADDRESSES, Guard
from chalicelib.embedded.sender.lookup_slots import LookupSlots

MAX_LOOKUPS = 1_000
"""Look-ups at once.

Without a response from a name server, a look-up occupies its thread for seconds until the system
gives up. Nothing can interrupt it. The event loop's own look-ups would share a few threads, and
some such look-ups would block all others.
"""

BUSY = "All look-ups of names are busy."

Addresses: TypeAlias = Sequence[AddrInfoType]

StartThread: TypeAlias = Callable[[Callable[..., None], tuple[Any, ...]], object]
"""Start a daemon thread without waiting for it. Raises ``RuntimeError`` if there are no more."""

_Wanted: TypeAlias = tuple[str, str, int]
"""Tenant, host and port."""


class GuardedResolver:
    """Resolves names to addresses that may be called.

    Each look-up under way has a thread of its own, so that one that hangs delays no other name. The
    threads are daemons, unlike those of an executor: they do not delay the end of the process.
    Idle threads are used again. Calls of a tenant that want one name at the same time share a
    look-up. Calls of two tenants do not: one of them may have to wait for a free look-up.
    """

    def __init__(
        self,
        guard: Guard,
        max_wait_s: float,
        *,
        max_lookups: int = MAX_LOOKUPS,
        tenant_share: float = 1.0,
        start_thread: StartThread = _thread.start_new_thread,
    ) -> None:
        """``max_wait_s`` is the longest deadline of a call: after it no call needs the result.

        ``tenant_share`` is the share of the look-ups at once that one tenant may have.
        """
        self._guard = guard
        self._max_wait_s = max_wait_s
        self._slots = LookupSlots(max_lookups, tenant_share)
        self._start_thread = start_thread
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._under_way: dict[_Wanted, asyncio.Task[Addresses]] = {}
        self._waiting: set[_Wanted] = set()
        self._threads = 0
        self._idle = 0

    async def resolve(self, host: str, port: int, tenant: str = "") -> Addresses:
        """Return the addresses of ``host``, for a call of ``tenant``.

        Raises ``OSError``, ``ForbiddenTarget``, and ``Unavailable`` if this machine has no free
        look-up or no thread.
        """
        key = (tenant, host, port)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look_up(key))
            self._under_way[key] = task
            task.add_done_callback(functools.partial(self._forget, key))
        # Shielded: the end of the call that asked first must not end the look-up of the others.
        return await asyncio.shield(task)

    def is_waiting(self, host: str, port: int, tenant: str = "") -> bool:
        """Tell whether the look-up of ``host`` has not begun, for want of a free one."""
        return (tenant, host, port) in self._waiting

    async def close(self) -> None:
        """Let every thread end after the look-up that it is doing."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _forget(self, key: _Wanted, task: asyncio.Task[Addresses]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # retrieved: every call that asked may have been given up

    async def _look_up(self, wanted: _Wanted) -> Addresses:
        tenant, host, port = wanted
        self._waiting.add(wanted)
        try:
            await asyncio.wait_for(self._slots.acquire(tenant), self._max_wait_s)
        except asyncio.TimeoutError as error:
            raise Unavailable(BUSY) from error
        finally:
            self._waiting.discard(wanted)
        try:
            self._reserve_thread()
        except RuntimeError as error:
            self._slots.release(tenant)
            raise Unavailable("The system gives this process no more threads.") from error
        found: Future[Addresses] = Future()
        # A running future cannot be cancelled: its slot stays taken until the look-up ends.
        found.set_running_or_notify_cancel()
        found.add_done_callback(
            functools.partial(self._on_done, asyncio.get_running_loop(), tenant)
        )
        self._jobs.put((found, functools.partial(self._resolve, host, port)))
        return await asyncio.wrap_future(found)

    def _reserve_thread(self) -> None:
        """Reserve an idle thread for a job, or start one.

        Raises ``RuntimeError`` if the system has no more threads.
        """
        if self._idle:
            self._idle -= 1
            return
        # Not a threading.Thread: its start waits until the thread runs. Ninety of them at once held
        # the event loop up for 100 ms.
        self._start_thread(_work, (self._jobs,))
        self._threads += 1

    def _on_done(self, loop: asyncio.AbstractEventLoop, tenant: str, _found: object) -> None:
        """Free the slot. Runs on the thread of the look-up, maybe after the loop has closed."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._free_slot, tenant)

    def _free_slot(self, tenant: str) -> None:
        self._idle += 1
        self._slots.release(tenant)

    def _resolve(self, host: str, port: int) -> Addresses:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # On the results, not on the name: the sender uses these addresses and asks no name server
        # again, so a name cannot change its address after the check (DNS rebinding).
        self._guard.check(host, [str(address[0]) for *_, address in found])
        return found[:MAX_ADDRESSES]


_Job: TypeAlias = tuple["Future[Addresses]", Callable[[], Addresses]]


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    """Carry out one job after another, until there is None."""
    while (job := jobs.get()) is not None:
        found, look_up = job
        try:
            found.set_result(look_up())
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            found.set_exception(error)
