"""``python -m local.receiver`` prints every webhook that it receives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.server import PROJECT, Server, free_port
from tests.support.waiting import PATIENCE_S, eventually

Start = Callable[[int], "subprocess.Popen[bytes]"]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "receiver.txt"


@pytest.fixture
def start(output: Path, server: Server) -> Iterator[Start]:
    """Return a function that starts the receiver beside ``server``."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> subprocess.Popen[bytes]:
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "local.receiver", str(port)],
                cwd=PROJECT,
                env=os.environ | {"PORT": str(server.port)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_every_webhook_is_a_line(server: Server, start: Start, output: Path) -> None:
    port = free_port()
    start(port)
    assert eventually(lambda: str(port) in output.read_text())

    ids = [server.set_timer(f"http://127.0.0.1:{port}/hook", 1) for _ in range(3)]

    assert eventually(lambda: output.read_text().count("POST") == 3), output.read_text()
    lines = output.read_text().splitlines()
    for timer_id in ids:
        (line,) = [line for line in lines if f"POST /hook/{timer_id} " in line]
        assert line.endswith(" ms")
        assert "+" in line, "a webhook is never early"
    assert eventually(lambda: len(server.timers("fired")) == 3)


def test_a_port_in_use_prints_one_clear_line(start: Start, output: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        assert start(port).wait(PATIENCE_S) != 0
    (line,) = output.read_text().splitlines()
    assert str(port) in line
    assert "RECEIVER_PORT=" in line
