"""A receiver to try timers with. It prints every webhook that arrives, and its lateness.

A webhook does not carry its due time, so the receiver asks the timer service for it after its
response. The service is the one on this machine, or that of ``SERVICE_URL``.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import queue
import socketserver
import sys
import threading
import time
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from chalicelib.domain.errors import StartupError
from chalicelib.domain.target import parse_target
from chalicelib.settings import load

HOST = "127.0.0.1"
USAGE = "usage: python -m local.receiver PORT (1 to 65535)"
LOOKUP_TIMEOUT_S = 2.0
"""How long the service may take to tell a due time."""

IDLE_TIMEOUT_S = 60.0
"""How long a connection may be silent before it is closed."""

_MAX_BODY_BYTES = 65_536
_MAX_PORT = 65_535

# Without the proxies of the environment, which could not reach this machine.
_open_directly = build_opener(ProxyHandler({})).open


class Arrival(NamedTuple):
    """One webhook: when it arrived (epoch seconds), and the path it called."""

    at: float
    path: str


class Receiver(socketserver.ThreadingTCPServer):
    """Responds to every POST at once and puts it into ``arrivals``. One thread per connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int) -> None:
        self.arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about a connection that broke."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True  # it would delay a response by up to 40 ms
    server: Receiver

    def parse_request(self) -> bool:
        """Take the time of arrival before the request is parsed."""
        self._arrived_at = time.time()
        return super().parse_request()

    def do_POST(self) -> None:
        """Respond with 204 and record the arrival."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self.rfile.read(int(length))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()
        self.server.arrivals.put(Arrival(self._arrived_at, self.path))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Print nothing: ``main`` prints the arrivals."""


def main() -> int:
    """Print arrivals until Ctrl-C; return the exit code (``sysexits.h``)."""
    arguments = sys.argv[1:]
    port = _port(arguments[0]) if len(arguments) == 1 else None
    if port is None:
        print(USAGE, file=sys.stderr)
        return os.EX_USAGE
    try:
        service = os.environ.get("SERVICE_URL") or f"http://{HOST}:{load().port}"
        receiver = Receiver(port)
    except StartupError as error:
        print(f"receiver: {error.detail}", file=sys.stderr)
        return os.EX_CONFIG
    except OSError as error:
        print(
            f"receiver: cannot listen on {HOST}:{port} ({error.strerror}); "
            f"try: make receiver RECEIVER_PORT={port + 1}",
            file=sys.stderr,
        )
        return os.EX_CONFIG
    threading.Thread(target=receiver.serve_forever, name="receiver", daemon=True).start()
    try:
        print(f"Receiver listens on http://{HOST}:{port}; Ctrl-C ends it", flush=True)
        while True:
            arrival = receiver.arrivals.get()
            print(line(arrival, due_at(service, arrival.path)), flush=True)
    except (KeyboardInterrupt, BrokenPipeError):
        return os.EX_OK


def _port(text: str) -> int | None:
    return int(text) if text.isdecimal() and 0 < int(text) <= _MAX_PORT else None


def line(arrival: Arrival, due: float | None) -> str:
    """Return the line to print for one webhook; ``due`` is its due time (epoch s) if known."""
    local_time = datetime.fromtimestamp(arrival.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    # Escaped: a caller could otherwise send control characters to the terminal.
    path = ascii(arrival.path)[1:-1]
    lateness = "" if due is None else f"  {(arrival.at - due) * 1000:+.1f} ms"
    return f"{local_time} POST {path}{lateness}"


def due_at(service: str, path: str) -> float | None:
    """Return when the timer that called ``path`` was due (epoch seconds).

    Return None if the service cannot be reached, or has no such timer.
    """
    path = urlsplit(path).path
    last = path.rpartition("/")[2]
    if not (last.isascii() and last.isdecimal()):
        return None
    # GET /timers/<id> tells only the whole seconds left, but a list has the exact due time. The
    # first timer below the next id is this timer, if it exists.
    cursor = base64.urlsafe_b64encode(str(int(last) + 1).encode()).decode().rstrip("=")
    address = f"{service.rstrip('/')}/timers?limit=1&cursor={cursor}"
    try:
        with _open_directly(address, timeout=LOOKUP_TIMEOUT_S) as response:
            timers = json.load(response)
        if not timers or _called(timers[0]) != path:
            return None
        return datetime.fromisoformat(timers[0]["due_at"].replace("Z", "+00:00")).timestamp()
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None


def _called(timer: dict[str, Any]) -> str:
    """Return the path that a timer calls. Another service's timer may have the same id."""
    return urlsplit(parse_target(timer["url"]).url(timer["id"])).path


if __name__ == "__main__":
    sys.exit(main())
