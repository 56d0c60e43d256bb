"""Name look-ups of the sender: each runs on a thread, and every address is checked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

from aiohttp.abc import AbstractResolver, ResolveResult

from chalicelib.domain.ssrf_guard import MAX_ADDRESSES, Guard

MAX_LOOKUPS = 1_000
"""Look-ups at once.

Without a response from a name server, a look-up occupies its thread for seconds until the system
gives up. Nothing can interrupt it. The event loop's own look-ups would share a few threads, and
some such look-ups would block all others.
"""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
"""Tells aiohttp that a result is an address, so that it is not looked up once more."""


class GuardedResolver(AbstractResolver):
    """Gives aiohttp's connector the addresses that may be called. It connects to no others.

    Each look-up has a thread of its own, so one that hangs delays no other name. The threads are
    daemons, unlike those of an executor: they do not delay the end of the process. Idle threads are
    used again. If many calls need one name at once, the connector asks once.
    """

    def __init__(
        self,
        guard: Guard,
        max_wait_s: float,
        *,
        max_lookups: int = MAX_LOOKUPS,
        new_thread: Callable[..., threading.Thread] = threading.Thread,
    ) -> None:
        """``max_wait_s`` is the longest deadline of a call: after it no call needs the result."""
        self._guard = guard
        self._max_wait_s = max_wait_s
        self._slots = asyncio.Semaphore(max_lookups)
        self._new_thread = new_thread
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host`` that may be called.

        Raises ``OSError`` if the look-up fails, ``ForbiddenTarget`` if an address may not be
        called, ``asyncio.TimeoutError`` if no slot became free in time, and ``RuntimeError`` if the
        system has no more threads.
        """
        # aiohttp 3.14 shields this from the cancellation of the call, so the deadline of the call
        # does not end the wait for a slot.
        await asyncio.wait_for(self._slots.acquire(), self._max_wait_s)
        try:
            self._reserve_thread()
        except RuntimeError:
            self._slots.release()
            raise
        found: Future[list[ResolveResult]] = Future()
        # A running future cannot be cancelled: its slot stays taken until the look-up ends.
        found.set_running_or_notify_cancel()
        found.add_done_callback(functools.partial(self._on_done, asyncio.get_running_loop()))
        self._jobs.put((found, functools.partial(self._look_up, host, port, family)))
        return await asyncio.wrap_future(found)

    def _reserve_thread(self) -> None:
        """Reserve an idle thread for a job, or start one.

        Raises ``RuntimeError`` if the system has no more threads.
        """
        if self._idle:
            self._idle -= 1
            return
        self._new_thread(target=_work, args=(self._jobs,), name="resolve", daemon=True).start()
        self._threads += 1

    def _on_done(self, loop: asyncio.AbstractEventLoop, _found: object) -> None:
        """Free the slot. Runs on the thread of the look-up, maybe after the loop has closed."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._free_slot)

    def _free_slot(self) -> None:
        self._idle += 1
        self._slots.release()

    def _look_up(self, host: str, port: int, family: int) -> list[ResolveResult]:
        found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        # On the results, not on the name: the connector uses these addresses and asks no name
        # server again, so a name cannot change its address after the check (DNS rebinding).
        self._guard.check(host, [str(address[0]) for *_, address in found])
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=_NUMERIC,
            )
            for kind, _, proto, _, address in found[:MAX_ADDRESSES]
        ]

    async def close(self) -> None:
        """Let the threads end. One whose look-up hangs ends after that."""
        for _ in range(self._threads):
            self._jobs.put(None)


_Job = tuple["Future[list[ResolveResult]]", Callable[[], list[ResolveResult]]]


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    """Carry out one job after another, until there is None."""
    while (job := jobs.get()) is not None:
        found, look_up = job
        try:
            found.set_result(look_up())
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            found.set_exception(error)
