"""The sockets that listen: what their connections inherit."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from local.listener import SEND_BUFFER_BYTES, listen


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
