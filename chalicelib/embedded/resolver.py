"""Name look-ups of the sender: each once, in a thread, every address checked before it is used."""

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

LOOK_UPS = 1_000
"""Look-ups at once. Nothing can cut short one that no name server answers: it holds its thread
until the system gives up, for seconds. The event loop's own look-ups share four threads.
"""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class GuardedResolver(AbstractResolver):
    """Gives the connector addresses that may be called; it connects to these and no others.

    Every look-up under way has a thread: one that hangs holds up no other name, and, as these are
    daemons and an executor's are not, not the end of the process either. The connector asks once
    for what many calls want at the same time.
    """

    def __init__(self, guard: Guard, longest_s: float) -> None:
        """``longest_s`` is how long a call can wait: beyond that nobody wants the look-up."""
        self._guard = guard
        self._longest_s = longest_s
        self._room = asyncio.Semaphore(LOOK_UPS)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``.

        Raises ``OSError``, ``ForbiddenTarget``, and ``asyncio.TimeoutError`` when other look-ups
        leave no room for as long as any call lasts. (The connector shields this from the end of
        the call that asked.)
        """
        await asyncio.wait_for(self._room.acquire(), self._longest_s)
        try:
            self._engage()
        except RuntimeError:  # the system has no more threads
            self._room.release()
            raise
        found: Future[list[ResolveResult]] = Future()
        found.set_running_or_notify_cancel()
        found.add_done_callback(functools.partial(self._done, asyncio.get_running_loop()))
        self._jobs.put((found, functools.partial(self._look_up, host, port, family)))
        return await asyncio.wrap_future(found)

    def _engage(self) -> None:
        """See to a thread for one job more. Raises ``RuntimeError`` where there is none."""
        if self._idle:
            self._idle -= 1
            return
        threading.Thread(target=_work, args=(self._jobs,), name="resolve", daemon=True).start()
        self._threads += 1

    def _done(self, loop: asyncio.AbstractEventLoop, _found: object) -> None:
        """Make room, from any thread, unless the loop is gone by now."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._idle += 1
        self._room.release()

    def _look_up(self, host: str, port: int, family: int) -> list[ResolveResult]:
        found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
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
        """Let the threads go; a look-up that hangs ends by itself."""
        for _ in range(self._threads):
            self._jobs.put(None)


_Job = tuple["Future[list[ResolveResult]]", Callable[[], list[ResolveResult]]]


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    """Look up one name after another, until there is None."""
    while (job := jobs.get()) is not None:
        found, look_up = job
        try:
            found.set_result(look_up())
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            found.set_exception(error)
