"""The status line decides: what comes with it or after it only costs the connection."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest

from chalicelib.domain.webhook import Outcome
from tests.contract.senders import (
    AMPLE_S,
    SHORT_S,
    SOON_S,
    ClosableSender,
    Listen,
    Start,
    call,
    timed,
)
from tests.contract.socket_receiver import Response, break_off, close, drip, reset, respond, stay

DELIVERED = {
    "204 with a body": b"HTTP/1.1 204 No Content\r\n\r\nbody",
    "204 with a length and a body": b"HTTP/1.1 204 X\r\nContent-Length: 4\r\n\r\nbody",
    "204 chunked": b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a header over all limits": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "150 headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 150 + b"Content-Length: 0\r\n\r\n",
    "headers over all limits": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
    "a body longer than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nbody",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nbody\r\n",
    "a chunk without its end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbody\r\n0\r\n\r\n"
    ),
    "a chunk size of 30 digits": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n"
    ),
    "a blank before a colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length : 0\r\n\r\n",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a line of no text": b"HTTP/1.1 200 OK\r\nX: \x00\xff\r\nContent-Length: 0\r\n\r\n",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length of 4,400 digits": (
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 4_400 + b"\r\n\r\n"
    ),
    "identity encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nbody",
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "a reason of no text": b"HTTP/1.1 200 \xff\x00\r\nContent-Length: 0\r\n\r\n",
    "a version of 5,000 digits": (
        b"HTTP/1." + b"1" * 5_000 + b" 200 OK\r\nContent-Length: 0\r\n\r\n"
    ),
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "an old version": b"HTTP/1.0 200 OK\r\n\r\n",
    "a version to come": b"HTTP/1.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an interim response first": (
        b"HTTP/1.1 103 Early\r\nnonsense\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    ),
    "a second response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
    "a location that is no URL": (
        b"HTTP/1.1 200 OK\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("raw", DELIVERED.values(), ids=DELIVERED)
@pytest.mark.parametrize("status", [b"200", b"503"])
def test_whatever_comes_with_the_status_line_it_is_the_outcome(
    start: Start, listen: Listen, raw: bytes, status: bytes
) -> None:
    raw = raw.replace(b" 200", b" " + status).replace(b" 204", b" " + status)
    receiver = listen(stay(raw), respond(202))
    sender = start(AMPLE_S, drain_s=0.1)
    outcome, took_s = timed(sender, call(receiver))
    assert replace(outcome, response=None) == Outcome(status=int(status))
    assert took_s < AMPLE_S
    assert sender.send(call(receiver)) == Outcome(status=202)


@pytest.mark.parametrize("end", [reset, close], ids=["reset", "closed"])
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a",
        b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n",
    ],
    ids=["after the status", "in the headers", "in a header", "after an interim response"],
)
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_a_response_that_breaks_off_after_its_status_line_was_given(
    sender: ClosableSender, listen: Listen, raw: bytes, end: Response, *, kept: bool
) -> None:
    receiver = listen(*([respond()] if kept else []), break_off(raw, end), respond(202))
    if kept:
        sender.send(call(receiver))
    assert sender.send(call(receiver)) == Outcome(status=200)
    assert sender.send(call(receiver)) == Outcome(status=202)
    assert len(receiver.requests) == 2 + kept


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    ],
    ids=["headers", "a header"],
)
def test_at_the_deadline_a_status_that_has_come_stands(
    start: Start, listen: Listen, first: bytes, drop: bytes
) -> None:
    outcome, took_s = timed(start(SHORT_S), call(listen(drip(first, drop))))
    assert outcome == Outcome(status=200)
    assert took_s < SOON_S


# A response belongs to the call that asked


@pytest.mark.parametrize("late_s", [0.0, 0.02])
def test_a_response_that_nobody_asked_for_is_not_taken_for_the_next(
    sender: ClosableSender, listen: Listen, late_s: float
) -> None:
    def respond_twice(connection: socket.socket, over: threading.Event) -> bool:
        respond(200)(connection, over)
        time.sleep(late_s)
        return respond(200)(connection, over)

    receiver = listen(respond_twice, respond(500))
    assert sender.send(call(receiver)) == Outcome(status=200)
    time.sleep(0.05)
    assert sender.send(call(receiver)) == Outcome(status=500)


@pytest.mark.parametrize("raw", [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_connection_that_speaks_while_it_is_idle_is_not_used_again(
    sender: ClosableSender, listen: Listen, raw: bytes
) -> None:
    def speak_later(connection: socket.socket, over: threading.Event) -> bool:
        respond(200)(connection, over)
        time.sleep(0.02)
        connection.sendall(raw)
        return True

    receiver = listen(speak_later, respond(500))
    sender.send(call(receiver))
    time.sleep(0.05)
    assert sender.send(call(receiver)) == Outcome(status=500)


# A response costs what we allow


def test_only_a_few_interim_responses_are_accepted(sender: ClosableSender, listen: Listen) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    receiver = listen(stay(interim * 1_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error is not None
    assert "without an end" in outcome.error


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_outcome_like_any_other(start: Start, listen: Listen, status: int) -> None:
    raw = b"HTTP/1.1 %d Moved\r\nLocation: http://[::1\r\nContent-Length: 1000000\r\n\r\n" % status
    receiver = listen(stay(raw))
    outcome, took_s = timed(start(AMPLE_S, drain_s=0.1), call(receiver))
    assert outcome == Outcome(status=status)
    assert took_s < SOON_S


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.6 secret\r\n",
        b"J\x00\x00\x00\x0a8.0.36 secret\x00",
        b"220 mail.example ESMTP secret\r\n",
        b"-ERR secret\r\n",
        b"HTTP/1.1 secret\r\n\r\n",
    ],
)
def test_an_error_never_repeats_what_a_receiver_sent(
    sender: ClosableSender, listen: Listen, banner: bytes
) -> None:
    outcome = sender.send(call(listen(stay(banner))))
    assert outcome.status is None
    assert outcome.error is not None
    assert outcome.error.startswith("not an HTTP answer")
    assert "secret" not in outcome.error


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail.example ESMTP\r\n"])
def test_a_receiver_that_speaks_first_is_a_failed_attempt(
    sender: ClosableSender, listen: Listen, banner: bytes
) -> None:
    for _ in range(5):
        outcome = sender.send(call(listen(greet=stay(banner))))
        assert outcome.status is None
        assert (outcome.error or "").startswith("not an HTTP answer")


@pytest.mark.parametrize("end", [reset, close], ids=["reset", "closed"])
def test_a_receiver_that_accepts_and_ends_is_a_failed_attempt(
    sender: ClosableSender, listen: Listen, end: Response
) -> None:
    for _ in range(5):
        outcome = sender.send(call(listen(greet=end)))
        assert outcome.status is None
        assert outcome.error in {
            "connection closed without an answer",
            "connection reset by peer",
            "broken pipe",
        }
