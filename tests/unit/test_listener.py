"""The sockets that listen: their addresses, and what their connections inherit."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import pytest

from local.listener import SEND_BUFFER_BYTES, listen
from local.port import wait_for_port


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


HOSTS = [
    "127.0.0.1",
    "localhost",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_free_port_of_any_address_is_found_free_and_listened_on(host: str) -> None:
    (probe,) = listen(host, 0, 1)
    port = probe.getsockname()[1]
    probe.close()
    wait_for_port(host, port)
    (listener,) = listen(host, port, 1)
    with listener, socket.create_connection((host, port), 5):
        assert listener.getsockname()[1] == port


def test_the_system_keeps_little_of_what_a_client_does_not_read() -> None:
    with ExitStack() as stack:
        (listener,) = listen("127.0.0.1", 0, 1)
        stack.enter_context(listener)
        client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        # So that what the client's side keeps is little beside it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.settimeout(5)
        accepted = stack.enter_context(listener.accept()[0])
        accepted.setblocking(False)
        sent = 0
        try:
            while sent < 64 * SEND_BUFFER_BYTES:
                sent += accepted.send(b"x" * 65_536)
        except BlockingIOError:
            pass
    assert 0 < sent < 8 * SEND_BUFFER_BYTES
