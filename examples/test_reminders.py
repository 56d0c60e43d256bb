"""A test of your own code with days in milliseconds: copy it.

Start the service with ``make run CLOCK=test``, then run ``pytest examples``. The code under test is
``remind``: it sets a reminder for two days later, and one for a day after that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

SERVICE = os.environ.get("TIMERS_URL", "http://127.0.0.1:8000")


def remind(order: int, url: str) -> None:
    """Remind a customer after two days, and once more a day later."""
    for delay in ("2d", "3d"):
        body = {"delay": delay, "url": f"{url}/orders/{order}", "body": {"after": delay}}
        requests.post(f"{SERVICE}/timers", json=body, timeout=10).raise_for_status()


@pytest.fixture
def calls() -> Iterator[tuple[str, list[bytes]]]:
    """Return the URL of a receiver, and the bodies that it gets."""
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()


def advance(delay: str) -> None:
    """Move the service's clock; everything that is due on the way is called before this returns."""
    body = {"delay": delay}
    requests.post(f"{SERVICE}/_clock/advance", json=body, timeout=60).raise_for_status()


def test_a_customer_is_reminded_twice(calls: tuple[str, list[bytes]]) -> None:
    url, bodies = calls
    remind(7, url)
    advance("47h")
    assert bodies == []
    advance("2h")
    assert bodies == [b'{"after":"2d"}']
    advance("1d")
    assert bodies == [b'{"after":"2d"}', b'{"after":"3d"}']
