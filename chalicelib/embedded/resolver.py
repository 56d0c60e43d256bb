"""Name look-ups of the sender: each once, in a thread, every address checked before it is used."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

from aiohttp.abc import AbstractResolver, ResolveResult

from chalicelib.guard import MAX_ADDRESSES, Guard

LOOK_UPS = 1_000
"""Look-ups at once. Nothing can cut short one that no name server answers: it holds its thread
until the system gives up, for seconds. The event loop's own look-ups share four threads.
"""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class GuardedResolver(AbstractResolver):
    """Gives the connector addresses that may be called; it connects to these and no others.

    A look-up has a daemon thread of its own: one that hangs holds up no other name, and not the
    end of the process. The connector asks once for what many calls want at the same time.
    """

    def __init__(self, guard: Guard, longest_s: float) -> None:
        """``longest_s`` is how long a call can wait: beyond that nobody wants the look-up."""
        self._guard = guard
        self._longest_s = longest_s
        self._room = asyncio.Semaphore(LOOK_UPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``.

        Raises ``OSError``, ``ForbiddenTarget``, and ``asyncio.TimeoutError`` when other look-ups
        leave no room for as long as any call lasts. (The connector shields this from the end of
        the call that asked.)
        """
        await asyncio.wait_for(self._room.acquire(), self._longest_s)
        found: Future[list[ResolveResult]] = Future()
        found.set_running_or_notify_cancel()
        found.add_done_callback(functools.partial(self._leave, asyncio.get_running_loop()))
        look_up = functools.partial(self._look_up, host, port, family)
        try:
            threading.Thread(
                target=_settle, args=(found, look_up), name="resolve", daemon=True
            ).start()
        except RuntimeError as error:  # the system has no more threads
            found.set_exception(error)
        return await asyncio.wrap_future(found)

    def _leave(self, loop: asyncio.AbstractEventLoop, _found: object) -> None:
        """Make room, from any thread, unless the loop is gone by now."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._room.release)

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
        """Do nothing: a look-up that hangs ends by itself."""


def _settle(found: Future[list[ResolveResult]], look_up: Callable[[], list[ResolveResult]]) -> None:
    try:
        found.set_result(look_up())
    except Exception as error:  # noqa: BLE001 - raised where it is awaited
        found.set_exception(error)
