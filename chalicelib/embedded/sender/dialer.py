"""Connecting to a receiver: resolve its name once, check every address, try them in turn."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Sequence

from aiohappyeyeballs import AddrInfoType, start_connection

from chalicelib.domain.ssrf_guard import Guard
from chalicelib.embedded.sender.resolver import GuardedResolver

HAPPY_EYEBALLS_DELAY_S = 0.25
"""After this long the next address of a name is tried beside the last (RFC 8305, section 5)."""


class Dialer:
    """Opens sockets to checked addresses only."""

    def __init__(self, guard: Guard, resolver: GuardedResolver) -> None:
        self._guard = guard
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a connected socket. ``host`` carries no brackets.

        Raises ``OSError`` and what ``GuardedResolver.resolve`` raises.
        """
        found = self._literal(host, port)
        if found is None:
            found = await self._resolver.resolve(host, port)
        connected = await self._connect(found)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _literal(self, host: str, port: int) -> Sequence[AddrInfoType] | None:
        """Return the address that ``host`` is, None for a name."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        self._guard.check(host, [host])
        if isinstance(address, ipaddress.IPv6Address):
            return [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", (host, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]

    async def _connect(self, found: Sequence[AddrInfoType]) -> socket.socket:
        if not found:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        if len(found) > 1:
            return await start_connection(
                found, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S, interleave=1, loop=self._loop
            )
        family, kind, protocol, _, address = found[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setblocking(False)
            await self._loop.sock_connect(opened, address)
        except BaseException:
            opened.close()
            raise
        return opened
