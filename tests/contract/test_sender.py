"""The requests that every sender makes, and how it reads responses, whichever library it uses."""

from __future__ import annotations

import base64
import errno
import gzip
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from chalicelib.aws.sender import RequestsSender
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.webhook import Call, Outcome
from tests.contract.network import resolve
from tests.contract.senders import (
    AMPLE_S,
    OPEN,
    SHORT_S,
    SOON_S,
    ClosableSender,
    FakeThreads,
    Listen,
    Start,
    call,
    timed,
)
from tests.contract.socket_receiver import (
    Response,
    break_off,
    close,
    drip,
    hang,
    reset,
    respond,
    respond_and_close,
    send_raw,
)

# What is sent


def test_a_webhook_is_one_empty_post(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen()
    assert sender.send(call(receiver)) == Outcome(status=200)
    (request,) = receiver.requests
    assert request.line == "POST /hook/7 HTTP/1.1"
    assert request.body == b""
    assert request.headers["content-length"] == "0"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_no_header_is_added_beyond_those_that_http_needs(
    sender: ClosableSender, listen: Listen
) -> None:
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
    # The variables that HTTP libraries read by default.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert start().send(call(receiver)).status == 200
    assert len(receiver.requests) == 1
    assert proxy.connections == 0


def test_no_cookie_is_kept(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(respond(200, "Set-Cookie: a=b; Path=/"))
    sender.send(call(receiver))
    sender.send(call(receiver))
    assert "cookie" not in receiver.requests[1].headers


# What a response means


@pytest.mark.parametrize("status", [200, 201, 202, 204, 400, 401, 404, 410, 429, 500, 503, 599])
def test_the_status_is_the_outcome(sender: ClosableSender, listen: Listen, status: int) -> None:
    receiver = listen(respond(status))
    assert sender.send(call(receiver)) == Outcome(status=status)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(sender: ClosableSender, listen: Listen, status: int) -> None:
    elsewhere = listen()
    receiver = listen(respond(status, f"Location: http://127.0.0.1:{elsewhere.port}/"))
    assert sender.send(call(receiver)) == Outcome(status=status)
    assert elsewhere.connections == 0
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "location", ["http://[::1", "http://", "//", "http://x:99999/", "http://x\\y/"]
)
def test_the_status_of_a_redirect_stands_wherever_it_leads(
    sender: ClosableSender, listen: Listen, location: str
) -> None:
    receiver = listen(respond(302, f"Location: {location}"))
    assert sender.send(call(receiver)) == Outcome(status=302)


def test_the_body_of_a_redirect_does_not_put_off_its_status(start: Start, listen: Listen) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 1000000\r\n\r\n"
    outcome, took_s = timed(start(SHORT_S), call(listen(drip(head, b"x"))))
    assert replace(outcome, response=None) == Outcome(status=302)
    assert took_s < SOON_S


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    sender: ClosableSender, listen: Listen, text: str, seconds: float | None
) -> None:
    receiver = listen(respond(503, f"Retry-After: {text}"))
    assert sender.send(call(receiver)) == Outcome(status=503, retry_after=seconds)


def test_a_retry_after_date_counts_from_this_machines_clock(start: Start, listen: Listen) -> None:
    receiver = listen(respond(503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"))
    two_minutes_before = 1_445_412_480 - 120.0
    sender = start(clock=lambda: two_minutes_before)
    assert sender.send(call(receiver)) == Outcome(status=503, retry_after=120.0)


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("times", [1, 3])
def test_an_interim_response_is_not_the_outcome(
    sender: ClosableSender, listen: Listen, status: int, times: int
) -> None:
    interim = b"HTTP/1.1 %d Go on\r\nLink: </a>\r\n\r\n" % status
    receiver = listen(send_raw(interim * times + b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert sender.send(call(receiver)) == Outcome(status=204)


def test_another_protocol_than_the_one_asked_for_is_no_success(
    sender: ClosableSender, listen: Listen
) -> None:
    receiver = listen(
        send_raw(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
    )
    assert sender.send(call(receiver)) == Outcome(status=101)


def test_a_response_without_a_length_ends_with_its_connection(
    sender: ClosableSender, listen: Listen
) -> None:
    receiver = listen(send_raw(b"HTTP/1.1 200 OK\r\n\r\nsome words"))
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
    assert sender.send(call(listen(send_raw(raw)))) == Outcome(status=200)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc Nonsense\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 103 Early\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n",
        b"\x00" * 1_000,
    ],
    ids=[
        "another protocol",
        "no status",
        "a status of zeros",
        "cut in the status",
        "cut after an interim response",
        "cut in an interim response",
        "zeros",
    ],
)
def test_a_malformed_response_is_a_failed_attempt(
    sender: ClosableSender, listen: Listen, raw: bytes
) -> None:
    receiver = listen(send_raw(raw))
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error
    assert len(outcome.error) < 300
    assert len(receiver.requests) == 1


def test_a_body_is_passed_over_without_being_decoded(
    sender: ClosableSender, listen: Listen
) -> None:
    receiver = listen(respond(200, "Content-Encoding: gzip", body=b"not gzip at all"))
    for _ in range(2):
        assert sender.send(call(receiver)) == Outcome(status=200)
    assert [request.connection for request in receiver.requests] == [1, 1]


# No response


def test_a_refused_connection_is_a_failed_attempt(sender: ClosableSender) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/7"
        outcome = sender.send(Call(url=url, headers={}))
    assert outcome.status is None
    assert "refused" in (outcome.error or "")


def test_addresses_that_all_refuse_are_a_failed_attempt(
    sender: ClosableSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"dual.example": [["127.0.0.1", "127.0.0.2", "127.0.0.3"]]})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://dual.example:{unused.getsockname()[1]}/7"
        outcome = sender.send(Call(url=url, headers={}))
    assert outcome == Outcome(error="connection refused")


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nX: b", "€"])
def test_a_header_that_could_not_be_told_from_two_is_not_sent(
    sender: ClosableSender, listen: Listen, value: str
) -> None:
    receiver = listen()
    outcome = sender.send(call(receiver, **{"X-Value": value}))
    assert outcome.status is None
    assert outcome.error
    assert receiver.requests == []


def test_a_name_that_does_not_exist_is_a_failed_attempt(sender: ClosableSender) -> None:
    outcome = sender.send(Call(url="http://name.invalid/7", headers={}))
    assert outcome == Outcome(error="host name not found")


@pytest.mark.parametrize("misbehaviour", [reset, close], ids=["reset", "closed"])
def test_a_fresh_connection_without_a_response_is_one_failed_attempt(
    sender: ClosableSender, listen: Listen, misbehaviour: Response
) -> None:
    receiver = listen(misbehaviour)
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


def test_a_body_that_drips_does_not_put_off_the_deadline(start: Start, listen: Listen) -> None:
    receiver = listen(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"))
    outcome, took_s = timed(start(SHORT_S), call(receiver))
    assert outcome == Outcome(status=200)
    assert took_s < SOON_S


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: ", b"a"),
        (b"HTTP/1.1 200 ", b"O"),
    ],
    ids=["an interim header", "a status"],
)
def test_a_dripping_start_of_a_response_does_not_put_off_the_deadline(
    start: Start, listen: Listen, first: bytes, drop: bytes
) -> None:
    outcome, took_s = timed(start(SHORT_S), call(listen(drip(first, drop))))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


IMPATIENT_S = 0.1
"""How long a sender waits for a body in the next tests."""


def test_a_body_that_drips_is_left_long_before_the_deadline(start: Start, listen: Listen) -> None:
    receiver = listen(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"))
    outcome, took_s = timed(start(10 * AMPLE_S, drain_s=IMPATIENT_S), call(receiver))
    assert outcome == Outcome(status=200)
    assert took_s < AMPLE_S


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
    ids=["none of it", "no chunk", "a huge chunk", "no end of the trailers"],
)
def test_a_body_that_does_not_come_is_left_long_before_the_deadline(
    start: Start, listen: Listen, raw: bytes
) -> None:
    outcome, took_s = timed(start(10 * AMPLE_S, drain_s=IMPATIENT_S), call(listen(drip(raw, b""))))
    assert outcome == Outcome(status=200)
    assert took_s < AMPLE_S


@pytest.mark.parametrize(
    "greet",
    [hang, drip(b"\x16\x03\x03\x40\x00", b"\x02")],
    ids=["without a word", "of a byte at a time"],
)
def test_a_tls_handshake_without_an_end_is_left_at_the_deadline(
    start: Start, listen: Listen, greet: Response
) -> None:
    receiver = listen(greet=greet)
    wanted = Call(url=f"https://127.0.0.1:{receiver.port}/7", headers={})
    outcome, took_s = timed(start(SHORT_S), wanted)
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_never_reads_is_left_at_the_deadline(
    start: Start, listen: Listen, scheme: str
) -> None:
    receiver = listen(greet=hang)
    wanted = Call(url=f"{scheme}://127.0.0.1:{receiver.port}/7", headers={"X": "a" * 50_000})
    outcome, took_s = timed(start(SHORT_S), wanted)
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S


@pytest.mark.parametrize(
    "greet",
    [
        hang,
        drip(b"\x16\x03\x03\x40\x00", b"\x02"),
        drip(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    ],
    ids=["hangs", "drips a handshake", "drips headers", "drips a body"],
)
def test_a_call_that_was_given_up_holds_no_thread(listen: Listen, greet: Response) -> None:
    slow, quick = listen(greet=greet), listen()
    sender = RequestsSender(SHORT_S, OPEN)
    for scheme in ("https", "http"):
        sender.send(Call(url=f"{scheme}://127.0.0.1:{slow.port}/7", headers={}))
        assert sender.send(call(quick)) == Outcome(status=200)
    sender.close()
    for thread in sending_threads():
        thread.join(AMPLE_S)
    assert not sending_threads()


def sending_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "send"]


def test_a_call_for_which_there_is_no_thread_is_no_failed_attempt(listen: Listen) -> None:
    receiver = listen()
    sender = RequestsSender(AMPLE_S, OPEN, new_thread=FakeThreads())
    with pytest.raises(Unavailable, match="no more threads"):
        sender.send(call(receiver))
    assert sender.send(call(receiver)) == Outcome(status=200)
    sender.close()


class NoSocket(socket.socket):
    """Stands in for a socket when the system has no open file left."""

    def __init__(self, *_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("host", ["127.0.0.1", "hook.example", "both.example"])
def test_a_call_for_which_there_is_no_open_file_is_no_failed_attempt(
    sender: ClosableSender, listen: Listen, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    receiver = listen()
    resolve(monkeypatch, {"hook.example": [["127.0.0.1"]], "both.example": [["127.0.0.1", "::1"]]})
    wanted = Call(url=f"http://{host}:{receiver.port}/7", headers={})
    with monkeypatch.context() as patched:
        # The interpreter's own class, as both senders use it.
        patched.setattr(socket, "socket", NoSocket)
        with pytest.raises(Unavailable, match="no more files"):
            sender.send(wanted)
    assert sender.send(wanted) == Outcome(status=200)


def test_a_kept_connection_that_hangs_is_left_at_the_deadline_and_not_tried_again(
    start: Start, listen: Listen
) -> None:
    receiver = listen(respond(), hang)
    sender = start(SHORT_S)
    sender.send(call(receiver))
    outcome, took_s = timed(sender, call(receiver))
    assert outcome == Outcome(error="timed out after 0.3 s")
    assert took_s < SOON_S
    assert len(receiver.requests) == 2


def test_a_timeout_does_not_hurt_the_next_call(start: Start, listen: Listen) -> None:
    receiver = listen(hang, respond())
    sender = start(SHORT_S)
    sender.send(call(receiver))
    assert sender.send(call(receiver)).status == 200


BUFFERED_BYTES = 50_000_000
"""More than the system buffers of a response that nobody reads."""

ENDLESS = {
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "a status": (b"HTTP/1.1 200 ", b"O" * 100),
    "blank lines": (b"", b"\r\n" * 50),
}
ENDLESS_AFTER_THE_STATUS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"),
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 100),
    "folded lines": (b"HTTP/1.1 200 OK\r\nX: a\r\n", b" a\r\n"),
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 100),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"a" * 100),
    "a chunk's extension": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"a" * 100,
    ),
    "gzip": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(bytes(10**6))),
}


def flood(first: bytes, drop: bytes) -> tuple[Response, list[int]]:
    """Send ``first``, then ``drop`` as fast as possible. The list counts the bytes."""
    sent: list[int] = []

    def send(connection: socket.socket, over: threading.Event) -> bool:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.sendall(first)
        while not over.is_set() and sum(sent) < 1_000_000_000:
            sent.append(connection.send(drop * (65_536 // len(drop) + 1)))
        return False

    return send, sent


@pytest.mark.parametrize(
    ("kind", "status"),
    [*((kind, None) for kind in ENDLESS), *((kind, 200) for kind in ENDLESS_AFTER_THE_STATUS)],
)
def test_a_response_without_an_end_is_read_up_to_a_limit_only(
    start: Start, listen: Listen, kind: str, status: int | None
) -> None:
    misbehaviour, sent = flood(*(ENDLESS | ENDLESS_AFTER_THE_STATUS)[kind])
    receiver = listen(misbehaviour)
    outcome, took_s = timed(start(10 * AMPLE_S), call(receiver))
    receiver.close()
    assert outcome.status == status
    assert bool(outcome.error) is (status is None)
    assert took_s < AMPLE_S
    assert sum(sent) < BUFFERED_BYTES


# Kept connections


def test_a_connection_is_used_again(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(respond(200, body=b"thanks"))
    for _ in range(3):
        assert sender.send(call(receiver)).status == 200
    assert [request.connection for request in receiver.requests] == [1, 1, 1]


def test_a_kept_connection_that_the_receiver_closed_while_idle_costs_nothing(
    sender: ClosableSender, listen: Listen
) -> None:
    receiver = listen(respond_and_close)
    for _ in range(5):
        assert sender.send(call(receiver)) == Outcome(status=200)
        time.sleep(0.02)  # the receiver's close is on its way
    assert len(receiver.requests) == 5


@pytest.mark.parametrize("misbehaviour", [reset, close], ids=["reset", "closed"])
def test_a_kept_connection_that_closes_on_a_request_is_replaced_at_once(
    sender: ClosableSender, listen: Listen, misbehaviour: Response
) -> None:
    receiver = listen(respond(), misbehaviour, respond(202))
    sender.send(call(receiver))
    assert sender.send(call(receiver)) == Outcome(status=202)
    assert [request.connection for request in receiver.requests] == [1, 1, 2]
    assert receiver.requests[2].line == receiver.requests[1].line


@pytest.mark.parametrize(
    "raw",
    [b"H", b"HTTP/1.1 103 Early\r\n\r\n"],
    ids=["in the status", "after an interim response"],
)
@pytest.mark.parametrize("end", [reset, close], ids=["reset", "closed"])
def test_a_kept_connection_that_breaks_before_its_status_is_one_failed_attempt(
    sender: ClosableSender, listen: Listen, raw: bytes, end: Response
) -> None:
    receiver = listen(respond(), break_off(raw, end), respond())
    sender.send(call(receiver))
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error
    assert len(receiver.requests) == 2


def test_a_kept_connection_is_replaced_once_only(sender: ClosableSender, listen: Listen) -> None:
    receiver = listen(respond(), close)
    sender.send(call(receiver))
    outcome = sender.send(call(receiver))
    assert outcome.status is None
    assert outcome.error
    assert len(receiver.requests) == 3


def test_a_replaced_connection_shares_the_deadline_of_its_call(
    start: Start, listen: Listen
) -> None:
    receiver = listen(respond(), close, hang)
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
