"""HTTP by the byte: what a well-behaved client library would never send."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.support.waiting import PATIENCE_S

HOST = "Host: localhost\r\n"
TIMER = json.dumps({"seconds": 3600, "url": "http://127.0.0.1:1/"})


class RawAnswer(NamedTuple):
    """One answer off the wire."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Conversation:
    """One connection: send bytes, read answers one by one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("rb")

    def send(self, text: str) -> None:
        self._connection.sendall(text.encode("latin-1"))

    def finish_sending(self) -> None:
        """Tell the server that nothing more will come."""
        self._connection.shutdown(socket.SHUT_WR)

    def read(self) -> RawAnswer | None:
        """Return the next answer; None when the server has hung up instead."""
        try:
            status_line = self._incoming.readline()
        except ConnectionResetError:
            return None
        if not status_line:
            return None
        headers = http.client.parse_headers(self._incoming)
        body = self._incoming.read(int(headers.get("Content-Length", "0")))
        return RawAnswer(int(status_line.split()[1]), headers, body)

    def answer(self) -> RawAnswer:
        """Return the next answer, which must come."""
        answer = self.read()
        assert answer, "the server hung up"
        return answer

    def close(self) -> None:
        self._incoming.close()
        self._connection.close()


@contextmanager
def conversation(port: int) -> Iterator[Conversation]:
    """Open a connection for one test."""
    talk = Conversation(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
    try:
        yield talk
    finally:
        talk.close()


def post(headers: str, body: str) -> str:
    """Return a POST of ``body`` with just these headers and the host."""
    return f"POST /timers HTTP/1.1\r\n{HOST}{headers}\r\n{body}"


def with_length(body: str, *headers: str) -> str:
    """Return a POST with a Content-Length and these headers."""
    lines = [*headers, f"Content-Length: {len(body)}"]
    return post("".join(line + "\r\n" for line in lines), body)


def chunked(*chunks: str) -> str:
    """Return a POST of JSON in chunks."""
    parts = "".join(f"{len(chunk):x}\r\n{chunk}\r\n" for chunk in (*chunks, ""))
    return post("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", parts)
