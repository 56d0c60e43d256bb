"""Name look-ups of the sender: each once, in a thread, every address checked before it is used."""

from __future__ import annotations

import asyncio
import functools
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from chalicelib.guard import MAX_ADDRESSES, Guard

THREADS = 128
"""Look-ups at once. A name server that does not answer holds a thread for seconds, and must not
hold up the other names; the event loop's own look-ups share four threads.
"""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class GuardedResolver(AbstractResolver):
    """Gives the connector addresses that may be called; it connects to these and no others."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``. Raises ``OSError`` and ``ForbiddenTarget``."""
        look_up = functools.partial(self._look_up, host, port, family)
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)

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
        self._threads.shutdown(wait=False, cancel_futures=True)
