"""A network for the tests of SSRF protection.

A test decides the addresses of names, and every connection that leaves loopback is refused.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

PUBLIC = ("93.184.216.34", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "87.0.0.1")
"""The only addresses that hostile URLs may lead to: those of good.example, and 87.0.0.1, which is
0127.0.0.1 with its first part read as octal.
"""

SYSTEM_GETADDRINFO = socket.getaddrinfo


class FakeResolver:
    """Stands in for the resolver of the system. No query leaves the machine.

    Each name has a list of results, one for each look-up. The last is for all further look-ups.
    """

    def __init__(self, table: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self.asked: list[str] = []
        self._table = table

    def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        *_: Any,
        **__: Any,
    ) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        results = self._table.get(name.removesuffix("."))
        if results is None:
            return SYSTEM_GETADDRINFO(name, port, family, type, flags=socket.AI_NUMERICHOST)
        self.asked.append(name)
        addresses = results[min(self.asked.count(name), len(results)) - 1]
        return [
            found
            for address in addresses
            for found in SYSTEM_GETADDRINFO(address, port, 0, type, flags=socket.AI_NUMERICHOST)
        ]


class ConnectionRecorder:
    """Records every address that a socket of this process connects to.

    CPython reports it to audit hooks (PEP 578) before the system call, for every library and every
    event loop. Addresses that are not on loopback are refused at that point.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def record(self, address: Any) -> None:
        if not isinstance(address, tuple):
            return  # the path of a Unix socket
        host = str(address[0])
        self.addresses.append(host)
        if not _is_loopback(host):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no test calls {host}")


_recorders: list[ConnectionRecorder] = []


@functools.lru_cache(maxsize=1)
def _install_hook() -> None:
    """Install the audit hook once: it cannot be removed."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and _recorders:
            _recorders[-1].record(arguments[1])

    sys.addaudithook(hook)


@contextmanager
def recorded() -> Iterator[ConnectionRecorder]:
    """Record connections, and refuse those that leave this machine, until the end of the block."""
    _install_hook()
    _recorders.append(ConnectionRecorder())
    try:
        yield _recorders[-1]
    finally:
        _recorders.pop()


def resolve(
    monkeypatch: pytest.MonkeyPatch, table: Mapping[str, Sequence[Sequence[str]]]
) -> FakeResolver:
    """Make names resolve as ``table`` says. All other names do not exist."""
    names = FakeResolver(table)
    # Both HTTP libraries call the function of the interpreter.
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
