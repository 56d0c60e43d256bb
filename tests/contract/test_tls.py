"""What TLS adds: the status line decides there too, and a kept connection may close."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from typing import cast

import pytest

from chalicelib.domain.webhook import Call, Outcome
from tests.contract.certificate import Authority
from tests.contract.network import resolve
from tests.contract.senders import ClosableSender, Listen
from tests.contract.socket_receiver import Receiver, respond

BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + b"x" * 32
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
STATUS_ONLY = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch, trusted: Authority) -> None:
    """Trust before a sender is made: it reads its authorities once."""
    assert trusted
    resolve(monkeypatch, {"hook.example": [["127.0.0.1"]]})


def at(receiver: Receiver) -> Call:
    return Call(url=f"https://hook.example:{receiver.port}/7", headers={})


@pytest.mark.parametrize("wait_s", [0.0, 0.1])
@pytest.mark.parametrize("raw", [WHOLE, STATUS_ONLY], ids=["whole", "status only"])
def test_a_broken_record_does_not_undo_the_status(
    sender: ClosableSender, listen: Listen, trusted: Authority, raw: bytes, wait_s: float
) -> None:
    def respond_and_break(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall(raw)
        time.sleep(wait_s)
        os.write(connection.fileno(), BROKEN_RECORD)
        return False

    receiver = listen(respond_and_break, tls=trusted.server("hook.example"))
    assert sender.send(at(receiver)) == Outcome(status=200)


def test_headers_in_records_of_one_byte_do_not_undo_the_status(
    sender: ClosableSender, listen: Listen, trusted: Authority
) -> None:
    def drip_records(connection: socket.socket, _over: threading.Event) -> bool:
        connection.sendall(STATUS_ONLY)
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                connection.sendall(b"x")
        return False

    receiver = listen(drip_records, tls=trusted.server("hook.example"))
    assert sender.send(at(receiver)) == Outcome(status=200)


def test_a_kept_connection_that_says_goodbye_on_a_request_is_replaced(
    sender: ClosableSender, listen: Listen, trusted: Authority
) -> None:
    def say_goodbye(connection: socket.socket, _over: threading.Event) -> bool:
        connection.settimeout(0.05)
        with contextlib.suppress(OSError):
            cast("ssl.SSLSocket", connection).unwrap()
        return False

    receiver = listen(respond(), say_goodbye, respond(202), tls=trusted.server("hook.example"))
    sender.send(at(receiver))
    assert sender.send(at(receiver)) == Outcome(status=202)
    assert [request.connection for request in receiver.requests] == [1, 1, 2]
