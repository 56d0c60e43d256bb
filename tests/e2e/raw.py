"""HTTP requests as text, for requests that no client library would send."""

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


class RawResponse(NamedTuple):
    """One response as it was received."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Conversation:
    """One connection: send bytes, read responses one by one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("rb")

    def send(self, text: str) -> None:
        self._connection.sendall(text.encode("latin-1"))

    def finish_sending(self) -> None:
        """Close the sending side."""
        self._connection.shutdown(socket.SHUT_WR)

    def read(self) -> RawResponse | None:
        """Return the next response, None if the server closed the connection."""
        try:
            status_line = self._incoming.readline()
        except ConnectionResetError:
            return None
        if not status_line:
            return None
        headers = http.client.parse_headers(self._incoming)
        body = self._incoming.read(int(headers.get("Content-Length", "0")))
        return RawResponse(int(status_line.split()[1]), headers, body)

    def response(self) -> RawResponse:
        """Return the next response; fail if there is none."""
        response = self.read()
        assert response, "the server hung up"
        return response

    def close(self) -> None:
        self._incoming.close()
        self._connection.close()


@contextmanager
def conversation(port: int) -> Iterator[Conversation]:
    """Open a connection for one test."""
    opened = Conversation(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
    try:
        yield opened
    finally:
        opened.close()


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
