"""What every sender does on the wire, whatever library it is made of."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import pytest

from chalicelib.aws.sender import RequestsSender
from chalicelib.embedded.sender import KEPT_BODY_BYTES, AiohttpSender
from chalicelib.guard import Guard
from chalicelib.ports import Call, Outcome, Sender
from tests.contract.wire import (
    Answer,
    Receiver,
    answer,
    answer_and_close,
    close,
    drip,
    hang,
    reset,
    talk,
)

AMPLE_S = 5.0
SHORT_S = 0.3
SOON_S = 1.0
"""Within this a call with a deadline of ``SHORT_S`` is over on a busy machine too."""


class ClosableSender(Sender, Protocol):
    """A sender that holds connections."""

    def close(self) -> None: ...


class OnALoop:
    """The sender of the embedded engine, on an event loop in a thread of its own."""

    def __init__(self, deadline_s: float, guard: Guard) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._sender = asyncio.run_coroutine_threadsafe(
            self._make(deadline_s, guard), self._loop
        ).result()

    def send(self, call: Call) -> Outcome:
        return asyncio.run_coroutine_threadsafe(self._sender.send(call), self._loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._sender.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    @staticmethod
    async def _make(deadline_s: float, guard: Guard) -> AiohttpSender:
        return AiohttpSender(deadline_s, guard)


OPEN = Guard(allow_private=True)

SENDERS: dict[str, Callable[[float, Guard], ClosableSender]] = {
    "aiohttp": OnALoop,
    "requests": RequestsSender,
}

Start = Callable[..., ClosableSender]
Listen = Callable[..., Receiver]


@pytest.fixture(params=SENDERS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Return what makes a sender with a deadline."""
    senders: list[ClosableSender] = []

    def started(deadline_s: float = AMPLE_S, guard: Guard = OPEN) -> ClosableSender:
        senders.append(SENDERS[request.param](deadline_s, guard))
        return senders[-1]

    yield started
    for sender in senders:
        sender.close()


@pytest.fixture
def sender(start: Start) -> ClosableSender:
    return start()


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return what makes a receiver that gives these answers."""
    receivers: list[Receiver] = []

    def listening(*answers: Answer) -> Receiver:
        receivers.append(Receiver(*answers))
        return receivers[-1]

    yield listening
    for receiver in receivers:
        receiver.close()


def call(receiver: Receiver, target: str = "/hook/7", **headers: str) -> Call:
    return Call(url=f"http://127.0.0.1:{receiver.port}{target}", headers=dict(headers))


def timed(sender: Sender, wanted: Call) -> tuple[Outcome, float]:
    """Send, and return the outcome and how many seconds that took."""
    started = time.monotonic()
    outcome = sender.send(wanted)
    return outcome, time.monotonic() - started


# What is sent


def test_a_webhook_is_one_empty_post(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    assert sender.send(call(receiver)) == Outcome(status=200)
    (request,) = receiver.requests
    assert request.line == "POST /hook/7 HTTP/1.1"
    assert request.body == b""
    assert request.headers["content-length"] == "0"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_nothing_is_said_that_was_not_asked_for(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    sender.send(call(receiver, **{"User-Agent": "webhook-timers/1", "webhook-id": "s.default.7"}))
    (request,) = receiver.requests
    assert request.headers.keys() - {"connection", "accept-encoding", "accept"} == {
        "host",
        "content-length",
        "user-agent",
        "webhook-id",
    }
    assert request.headers["user-agent"] == "webhook-timers/1"
    assert request.headers["webhook-id"] == "s.default.7"


def test_credentials_go_out_as_they_were_prepared(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    value = "Basic " + base64.b64encode(b"u:p@").decode()
    sender.send(call(receiver, Authorization=value))
    assert receiver.requests[0].headers["authorization"] == value


@pytest.mark.parametrize(
    "target",
    [
        "/7",
        "/a/7",
        "/a/7?k=v",
        "/%2f%7E/7",
        "/%2F%7e%41/7?q=%2f%7E",
        "/a/../b/./7",
        "/a//b//7",
        "/;p=1/7",
        "/caf%C3%A9/7?x=%C3%A9",
        "/!$&'()*+,:=@~[]/7",
        "/%zz/7?%",
        "/a/7?k=a+b&k=%20&",
        "/a/7?u=http://x/?y",
    ],
)
def test_the_target_goes_out_byte_for_byte(
    sender: ClosableSender, listen: Listen, target: str
) -> None:
    receiver = listen()
    assert sender.send(call(receiver, target)).status == 200
    assert receiver.requests[0].line == f"POST {target} HTTP/1.1"


def test_the_environments_proxy_is_not_used(
    start: Start, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, receiver = listen(), listen()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert start().send(call(receiver)).status == 200
    assert len(receiver.requests) == 1
    assert proxy.connections == 0


def test_no_cookie_is_kept(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(answer(200, "Set-Cookie: a=b; Path=/"))
    sender.send(call(receiver))
    sender.send(call(receiver))
    assert "cookie" not in receiver.requests[1].headers


# What an answer means


@pytest.mark.parametrize("status", [200, 201, 202, 204, 400, 401, 404, 410, 429, 500, 503, 599])
def test_the_status_is_the_outcome(sender: ClosableSender, listen: Listen, status: int) -> None:
    receiver = listen(answer(status))
    assert sender.send(call(receiver)) == Outcome(status=status)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(sender: ClosableSender, listen: Listen, status: int) -> None:
    elsewhere = listen()
    receiver = listen(answer(status, f"Location: http://127.0.0.1:{elsewhere.port}/"))
    assert sender.send(call(receiver)) == Outcome(status=status)
    assert elsewhere.connections == 0
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("9" * 400, None),
    ],
)
def test_the_receivers_wish_when_to_come_back_is_read(
    sender: ClosableSender, listen: Listen, text: str, seconds: float | None
) -> None:
    receiver = listen(answer(503, f"Retry-After: {text}"))
    assert sender.send(call(receiver)) == Outcome(status=503, retry_after=seconds)


def test_a_word_to_go_on_is_no_answer_yet(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(talk(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"))
    assert sender.send(call(receiver)).status == 204


def test_an_answer_without_a_length_ends_with_its_connection(
    sender: ClosableSender, listen: Listen
) -> None:
    receiver = listen(talk(b"HTTP/1.1 200 OK\r\n\r\nsome words"))
    assert sender.send(call(receiver)) == Outcome(status=200)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut short",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
    ids=["cut short", "cut in a chunk", "not gzip"],
)
def test_a_broken_body_does_not_undo_the_status(
    sender: ClosableSender, listen: Listen, raw: bytes
) -> None:
    assert sender.send(call(listen(talk(raw)))) == Outcome(status=200)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc Nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 2",
        b"\x00" * 1_000,
    ],
    ids=["another protocol", "no status", "an endless header", "cut short", "zeros"],
)
def test_what_is_no_http_answer_is_a_failed_attempt(
    sender: ClosableSender, listen: Listen, raw: bytes
) -> None:
    receiver = listen(talk(raw))
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error
    assert len(outcome.error) < 300
    assert len(receiver.requests) == 1


# No answer


def test_a_refused_connection_is_a_failed_attempt(sender: ClosableSender) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/7"
        outcome = sender.send(Call(url=url, headers={}))
    assert outcome.status is None
    assert "refused" in (outcome.error or "")


def test_a_name_that_does_not_exist_is_a_failed_attempt(sender: ClosableSender) -> None:
    outcome = sender.send(Call(url="http://name.invalid/7", headers={}))
    assert outcome == Outcome(error="host name not found")


@pytest.mark.parametrize("misdeed", [reset, close], ids=["reset", "closed"])
def test_a_fresh_connection_without_an_answer_is_one_failed_attempt(
    sender: ClosableSender, listen: Listen, misdeed: Answer
) -> None:
    receiver = listen(misdeed)
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error
    assert len(receiver.requests) == 1


# The deadline


def test_a_hanging_receiver_is_left_at_the_deadline(start: Start, listen: Listen) -> None:
    receiver = listen(hang)
    outcome, took_s = timed(start(SHORT_S), call(receiver))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert SHORT_S * 0.9 <= took_s < SOON_S
    assert len(receiver.requests) == 1


def test_a_calls_own_timeout_shortens_the_deadline(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(hang)
    outcome, took_s = timed(sender, replace(call(receiver), timeout_s=SHORT_S))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


def test_a_calls_own_timeout_does_not_lengthen_the_deadline(start: Start, listen: Listen) -> None:
    receiver = listen(hang)
    outcome, took_s = timed(start(SHORT_S), replace(call(receiver), timeout_s=AMPLE_S))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


def test_headers_that_drip_do_not_put_off_the_deadline(start: Start, listen: Listen) -> None:
    receiver = listen(drip(b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"))
    outcome, took_s = timed(start(SHORT_S), call(receiver))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


def test_a_body_that_drips_does_not_put_off_the_deadline(start: Start, listen: Listen) -> None:
    receiver = listen(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"))
    outcome, took_s = timed(start(SHORT_S), call(receiver))
    assert outcome == Outcome(status=200)
    assert took_s < SOON_S


def test_a_kept_connection_that_hangs_is_left_at_the_deadline_and_not_tried_again(
    start: Start, listen: Listen
) -> None:
    receiver = listen(answer(), hang)
    sender = start(SHORT_S)
    sender.send(call(receiver))
    outcome, took_s = timed(sender, call(receiver))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S
    assert len(receiver.requests) == 2


def test_a_timeout_does_not_hurt_the_next_call(start: Start, listen: Listen) -> None:
    receiver = listen(hang, answer())
    sender = start(SHORT_S)
    sender.send(call(receiver))
    assert sender.send(call(receiver)).status == 200


def test_a_huge_body_is_read_no_further_than_it_serves(
    sender: ClosableSender, listen: Listen
) -> None:
    sent = 0

    def flood(connection: socket.socket, _over: threading.Event) -> bool:
        nonlocal sent
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while sent < 1_000_000_000:
            sent += connection.send(b"x" * 65_536)
        return False

    receiver = listen(flood)
    assert sender.send(call(receiver)) == Outcome(status=200)
    receiver.close()
    assert sent < KEPT_BODY_BYTES + 50_000_000  # the rest is what the system's buffers took


# Kept connections


def test_a_connection_is_used_again(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(answer(200, body=b"thanks"))
    for _ in range(3):
        assert sender.send(call(receiver)).status == 200
    assert [request.connection for request in receiver.requests] == [1, 1, 1]


def test_a_kept_connection_that_the_receiver_closed_meanwhile_costs_nothing(
    sender: ClosableSender, listen: Listen
) -> None:
    receiver = listen(answer_and_close)
    for _ in range(5):
        assert sender.send(call(receiver)) == Outcome(status=200)
        time.sleep(0.02)  # the receiver's close is on its way
    assert len(receiver.requests) == 5


@pytest.mark.parametrize("misdeed", [reset, close], ids=["reset", "closed"])
def test_a_kept_connection_that_closes_on_a_request_is_replaced_at_once(
    sender: ClosableSender, listen: Listen, misdeed: Answer
) -> None:
    receiver = listen(answer(), misdeed, answer(202))
    sender.send(call(receiver))
    assert sender.send(call(receiver)) == Outcome(status=202)
    assert [request.connection for request in receiver.requests] == [1, 1, 2]
    assert receiver.requests[2].line == receiver.requests[1].line


def test_a_kept_connection_is_replaced_once_only(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(answer(), close)
    sender.send(call(receiver))
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error
    assert len(receiver.requests) == 3


def test_a_replaced_connection_shares_the_deadline_of_its_call(
    start: Start, listen: Listen
) -> None:
    receiver = listen(answer(), close, hang)
    sender = start(SHORT_S)
    sender.send(call(receiver))
    outcome, took_s = timed(sender, call(receiver))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


# Many at once


def test_a_hanging_receiver_does_not_make_another_wait(start: Start, listen: Listen) -> None:
    hanging, quick = listen(hang), listen()
    sender = start(AMPLE_S)
    with ThreadPoolExecutor(8) as threads:
        stuck = [threads.submit(sender.send, call(hanging)) for _ in range(8)]
        outcome, took_s = timed(sender, call(quick))
        assert outcome.status == 200
        assert took_s < SOON_S
        hanging.close()
        assert all(waited.result().status is None for waited in stuck)


# What is not called


LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "user:password@127.0.0.1",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_guarded_sender_never_connects_to_this_machine(
    host: str, start: Start, listen: Listen
) -> None:
    receiver = listen()
    url = f"http://{host.rpartition('@')[2]}:{receiver.port}/7"
    outcome = start(guard=Guard()).send(Call(url=url, headers={}))
    assert outcome.status is None
    # Which spellings a resolver takes for this machine at all differs between systems.
    assert outcome.error is not None
    assert "must not be called" in outcome.error or outcome.error == "host name not found"
    assert receiver.connections == 0


def test_a_name_that_resolves_differently_the_second_time_is_looked_up_once(
    start: Start, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = listen()
    look_ups: list[str] = []

    def rebinding(host: str, port: int, *_: object, **__: object) -> list[Any]:
        look_ups.append(host)
        address = "93.184.216.34" if len(look_ups) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", _refuse)
    url = f"http://rebinding.example:{receiver.port}/7"
    outcome = start(0.3, guard=Guard()).send(Call(url=url, headers={}))
    assert outcome.status is None
    assert look_ups == ["rebinding.example"]
    assert receiver.connections == 0


def _refuse(_socket: socket.socket, address: object) -> None:
    raise ConnectionRefusedError(111, f"no test calls {address} outside this machine")
