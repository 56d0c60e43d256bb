"""Connecting to a receiver: resolve its name once, check every address, try them in turn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Sequence

from aiohappyeyeballs import AddrInfoType, start_connection

from chalicelib.domain.failure import lacks_files
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.embedded.sender.resolver import GuardedResolver

HAPPY_EYEBALLS_DELAY_S = 0.25
"""After this long the next address of a name is tried beside the last (RFC 8305, section 5)."""

_ERRNO = re.compile(r"\[Errno (\d+)\]")


class Dialer:
    """Opens sockets to checked addresses only."""

    def __init__(self, guard: Guard, resolver: GuardedResolver) -> None:
        self._guard = guard
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()

    async def connect(self, host: str, port: int, tenant: str = "") -> socket.socket:
        """Return a connected socket, for a call of ``tenant``. ``host`` carries no brackets.

        Raises ``OSError`` and what ``GuardedResolver.resolve`` raises.
        """
        found = self._literal(host, port)
        if found is None:
            found = await self._resolver.resolve(host, port, tenant)
        connected = await self._connect(found)
        # macOS refuses this on a connection that the receiver has reset already.
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _literal(self, host: str, port: int) -> Sequence[AddrInfoType] | None:
        """Return ``host`` as an address that can be connected to, None if it is a name."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        self._guard.check(host, [host])
        if isinstance(address, ipaddress.IPv6Address):
            return [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", (host, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]

    async def _race(self, found: Sequence[AddrInfoType]) -> socket.socket:
        """Try several addresses, each beside the earlier ones after a delay. Raises ``OSError``."""
        refused: list[OSError] = []

        def open_socket(address: AddrInfoType) -> socket.socket:
            try:
                return socket.socket(*address[:3])
            except OSError as error:
                refused.append(error)
                raise

        try:
            return await start_connection(
                found,
                happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S,
                interleave=1,
                loop=self._loop,
                socket_factory=open_socket,
            )
        except (OSError, RuntimeError) as error:
            # When no file was left for some address, the failures of the others decide nothing.
            if refused and lacks_files(refused[0]):
                raise refused[0] from error
            if isinstance(error, OSError) and error.errno:
                raise
            # The library joins failures of several kinds into one text. The last one is reported.
            number = int((_ERRNO.findall(str(error)) or [errno.EHOSTUNREACH])[-1])
            raise OSError(number, os.strerror(number)) from error

    async def _connect(self, found: Sequence[AddrInfoType]) -> socket.socket:
        if not found:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        if len(found) > 1:
            return await self._race(found)
        family, kind, protocol, _, address = found[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setblocking(False)
            await self._loop.sock_connect(opened, address)
        except BaseException:
            opened.close()
            raise
        return opened
