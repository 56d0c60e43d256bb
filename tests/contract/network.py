"""The network, for tests of what is called: names stand for what a test says, and nothing but
loopback is reached, whatever any code tries.
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
"""The only addresses that hostile URLs may lead to: those of good.example, and 0127.0.0.1."""

LOOK_UP = socket.getaddrinfo


class Names:
    """Stands in for the system's resolver; no query leaves the machine.

    A name has a list of answers, one for each look-up; the last is for all that follow.
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
        answers = self._table.get(name.removesuffix("."))
        if answers is None:
            return LOOK_UP(name, port, family, type, flags=socket.AI_NUMERICHOST)
        self.asked.append(name)
        answer = answers[min(self.asked.count(name), len(answers)) - 1]
        return [
            found
            for address in answer
            for found in LOOK_UP(address, port, 0, type, flags=socket.AI_NUMERICHOST)
        ]


class Recorder:
    """Every address that a socket of this process is told to connect to.

    CPython reports it before the system call, to whoever listens (audit hooks, PEP 578), whichever
    library or event loop the socket belongs to. What is not on loopback is refused there and then.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def note(self, address: Any) -> None:
        if not isinstance(address, tuple):
            return  # a path on this machine
        host = str(address[0])
        self.addresses.append(host)
        if not _is_here(host):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no test calls {host}")


_recorders: list[Recorder] = []


@functools.lru_cache(maxsize=1)
def _listen() -> None:
    """Have the hook installed: there is no taking it out again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and _recorders:
            _recorders[-1].note(arguments[1])

    sys.addaudithook(hook)


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Record connections, and let none leave this machine, until the end of the block."""
    _listen()
    _recorders.append(Recorder())
    try:
        yield _recorders[-1]
    finally:
        _recorders.pop()


def resolve(monkeypatch: pytest.MonkeyPatch, table: Mapping[str, Sequence[Sequence[str]]]) -> Names:
    """Have the names of ``table`` stand for what it says, and all others not exist."""
    names = Names(table)
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


def _is_here(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
