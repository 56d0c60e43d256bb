"""Receivers and servers. Every server is killed after its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.receiver import Receiver
from tests.e2e.server import Server

MakeServer = Callable[..., Server]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def make_server(tmp_path: Path, receiver: Receiver) -> Iterator[MakeServer]:
    """Return a function that makes servers, by default all on one data folder.

    The receiver is asked for so that it stops last: a server may call it to its end.
    """
    servers: list[Server] = []

    def make(data_dir: Path = tmp_path / "data", **options: object) -> Server:
        output = tmp_path / f"output-{len(servers)}.txt"
        output.touch()
        server = Server(data_dir, output, **options)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.kill()
        print(f"--- output of the server on port {server.port}\n{server.output}")  # noqa: T201


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """Return a server that serves."""
    server = make_server()
    server.start()
    return server
