"""What a client may have a webhook send, and what the receiver may say: on every sender alike."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from standardwebhooks.webhooks import Webhook

from chalicelib.domain.content import METHODS, Content
from chalicelib.domain.moment import rfc3339
from chalicelib.domain.signing import write_secret
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Timer
from chalicelib.domain.webhook import Call, Outcome
from tests.contract.senders import ClosableSender, Listen, call
from tests.contract.socket_receiver import respond, send_raw
from tests.support.factories import DUE, new_timer

KEY = b"k" * 32


def content_call(port: int, content: Content, keys: tuple[bytes, ...] = (KEY,)) -> Call:
    new = new_timer(url=f"http://127.0.0.1:{port}/hook")
    timer = Timer.first(replace(new, content=content), 7)
    return prepare(timer, "store", DUE + 3, keys, attempts_max=10)


@pytest.mark.parametrize("method", METHODS)
def test_the_method_is_the_client_s(sender: ClosableSender, listen: Listen, method: str) -> None:
    receiver = listen()
    assert sender.send(content_call(receiver.port, Content(method=method))).status == 200
    (request,) = receiver.requests
    assert request.line == f"{method} /hook/7 HTTP/1.1"
    assert request.body == b""
    length = request.headers.get("content-length")
    assert length == (None if method in ("GET", "DELETE") else "0")
    assert "content-type" not in request.headers


@pytest.mark.parametrize("size", [1, 256, 65_536])
def test_a_body_goes_out_byte_for_byte_and_is_signed(
    sender: ClosableSender, listen: Listen, size: int
) -> None:
    body = bytes(number % 256 for number in range(size))
    receiver = listen()
    content = Content(body=body, content_type="application/octet-stream")
    assert sender.send(content_call(receiver.port, content)) == Outcome(status=200)
    (request,) = receiver.requests
    assert request.body == body
    assert request.headers["content-length"] == str(size)
    assert request.headers["content-type"] == "application/octet-stream"


def test_the_receivers_own_library_verifies_a_body(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    content = Content(body=b'{"order":7}', content_type="application/json")
    new = new_timer(url=f"http://127.0.0.1:{receiver.port}/hook")
    timer = Timer.first(replace(new, content=content), 7)
    sender.send(prepare(timer, "store", int(time.time() * 1000), (KEY,)))
    (request,) = receiver.requests
    headers = dict(request.headers)
    assert Webhook(write_secret(KEY)).verify(request.body, headers) == {"order": 7}


def test_headers_go_out_as_the_client_wrote_them(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    content = Content(headers=(("X-Order", "7 of 9"), ("User-Agent", "mine"), ("X-Empty", "")))
    sender.send(content_call(receiver.port, content))
    (request,) = receiver.requests
    assert request.headers["x-order"] == "7 of 9"
    assert request.headers["user-agent"] == "mine"
    assert request.headers["x-empty"] == ""


def test_every_call_tells_about_its_timer(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    sender.send(content_call(receiver.port, Content(append_id=False)))
    (request,) = receiver.requests
    assert request.line == "POST /hook HTTP/1.1"
    told = {name: value for name, value in request.headers.items() if name.startswith("timer-")}
    assert told == {
        "timer-id": "7",
        "timer-attempt": "1",
        "timer-attempts-max": "10",
        "timer-last-attempt": "false",
        "timer-due-at": rfc3339(DUE),
        "timer-lateness-ms": "3",
    }


# What a failed response says

LONG = b"x" * 1_000


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Content-Length: 6\r\n\r\nbroken", "broken"),
        (b"Content-Length: 6\r\nConnection: close\r\n\r\nbroken", "broken"),
        (b"Connection: close\r\n\r\nbroken", "broken"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nbro\r\n3\r\nken\r\n0\r\n\r\n", "broken"),
        (b"Content-Length: 1000\r\n\r\n" + LONG, "x" * 256),
        (b"Content-Length: 0\r\n\r\n", None),
        (b"Content-Length: 9\r\n\r\n\x1b[31m\na\x00b", "[31m a b"),
        ("Content-Length: 4\r\n\r\n\u00e4\u00e4".encode(), "\u00e4\u00e4"),
        (b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\n\x1f\x8bxxxx", None),
    ],
)
def test_the_beginning_of_a_failed_response_is_kept(
    sender: ClosableSender, listen: Listen, raw: bytes, expected: str | None
) -> None:
    receiver = listen(send_raw(b"HTTP/1.1 500 Broken\r\n" + raw))
    assert sender.send(call(receiver)) == Outcome(status=500, response=expected)


def test_nothing_of_a_success_is_kept(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(respond(200, body=b"thanks"))
    assert sender.send(call(receiver)) == Outcome(status=200)


@pytest.mark.parametrize("value", ["60", "Wed, 25 Nov 2026 12:00:00 GMT", "soon"])
def test_the_wish_to_be_called_again_is_passed_on(
    sender: ClosableSender, listen: Listen, value: str
) -> None:
    receiver = listen(respond(204, f"Timer-Again: {value}"))
    assert sender.send(call(receiver)) == Outcome(status=204, again=value)
