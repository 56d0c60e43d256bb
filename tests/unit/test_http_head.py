"""The heads of requests: what is read from them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.http_head import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    BadRequest,
    Head,
    check_beginning,
    read_head,
)

HOST = b"Host: localhost\r\n"


def head(line: bytes = b"GET /timers HTTP/1.1", headers: bytes = HOST) -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


def read(line: bytes = b"GET /timers HTTP/1.1", headers: bytes = HOST) -> Head:
    return read_head(head(line, headers), "192.0.2.1")


def refusal(line: bytes = b"GET /timers HTTP/1.1", headers: bytes = HOST) -> int:
    with pytest.raises(BadRequest) as caught:
        read(line, headers)
    return caught.value.status


def test_a_request_has_a_method_a_path_a_query_headers_and_a_client() -> None:
    request = read(b"PATCH /timers/7?a=b%20c HTTP/1.1", HOST + b"X-A:  b \r\n").request
    assert (request.method, request.path, request.query) == ("PATCH", "/timers/7", "a=b%20c")
    assert request.headers == {"host": "localhost", "x-a": "b"}
    assert (request.client, request.body) == ("192.0.2.1", b"")


@pytest.mark.parametrize("method", ["BREW", "M-SEARCH", "PURGE", "get"])
def test_a_method_that_http_does_not_name_is_passed_on(method: str) -> None:
    assert read(f"{method} / HTTP/1.1".encode()).request.method == method


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a%2Fb?c", "/a/b", "c"),
        (b"/caf%C3%A9", "/caf\N{LATIN SMALL LETTER E WITH ACUTE}", ""),
        (b"/%ff", "/\N{REPLACEMENT CHARACTER}", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"/a#b", "/a", ""),
        (b"*", "*", ""),
        (b"http://h/a?b", "/a", "b"),
        (b"HTTPS://h?b", "/", "b"),
    ],
)
def test_a_target_is_a_path_or_a_url(target: bytes, path: str, query: str) -> None:
    request = read(b"GET " + target + b" HTTP/1.1").request
    assert (request.path, request.query) == (path, query)


def test_the_host_of_a_url_stands_above_the_header() -> None:
    assert read(b"GET http://user@evil.example/ HTTP/1.1").request.headers["host"] == "evil.example"


def test_a_header_in_several_lines_is_their_values_with_commas() -> None:
    assert read(headers=HOST + b"A: b\r\na: c\r\n").request.headers["a"] == "b,c"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_the_version_and_the_client_say_whether_the_connection_is_kept(
    version: bytes, connection: bytes, *, kept: bool
) -> None:
    assert read(b"GET / HTTP/" + version, HOST + connection).keep_alive is kept


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 9223372036854775807\r\n", 2**63 - 1),
        (b"Transfer-Encoding: Chunked\r\n", None),
    ],
)
def test_the_framing_of_the_body_is_told(headers: bytes, length: int | None) -> None:
    assert read(b"POST / HTTP/1.1", HOST + headers).length == length


def test_only_http_1_1_may_wait_for_100_continue() -> None:
    expect = HOST + b"Expect: 100-Continue\r\n"
    assert read(b"POST / HTTP/1.1", expect).expects_continue
    assert not read(b"POST / HTTP/1.0", expect).expects_continue


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1",
        b"GET /",
        b"GET / HTTP/1.1\x00",
        b"GET /a b HTTP/1.1",
        b" GET / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET timers HTTP/1.1",
        b"GET ftp://h/ HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/x.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\ta HTTP/1.1",
        b"PRI * HTTP/2.0 ",
    ],
)
def test_a_request_line_of_another_form_is_refused(line: bytes) -> None:
    assert refusal(line) == 400


@pytest.mark.parametrize("version", [b"2.0", b"0.9", b"1.2", b"3.0"])
def test_another_version_is_refused(version: bytes) -> None:
    assert refusal(b"GET / HTTP/" + version) == 505


# RFC 9112, 5.1, 5.2, 6.1 to 6.3: forms that two parsers could read in two ways.
@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n",
        HOST + b"Content-Length: 1, 1\r\n",
        HOST + b"Content-Length: +1\r\n",
        HOST + b"Content-Length: 0x1\r\n",
        HOST + b"Content-Length: 1 1\r\n",
        HOST + b"Content-Length:\r\n",
        HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        HOST + b"Transfer-Encoding : chunked\r\n",
        HOST + b" Transfer-Encoding: chunked\r\n",
        HOST + b"A: b\r\n c\r\n",
        HOST + b"A: b\n",
        HOST + b"A: b\rC: d\r\n",
        HOST + b"A: b\x00\r\n",
        HOST + b"A\x00: b\r\n",
        HOST + b"A\r\n",
        HOST + b": b\r\n",
        HOST + b"A(: b\r\n",
    ],
)
def test_headers_that_could_be_read_in_two_ways_are_refused(headers: bytes) -> None:
    assert refusal(b"POST / HTTP/1.1", headers) == 400


@pytest.mark.parametrize("coding", [b"gzip", b"chunked, gzip", b"gzip, chunked", b"identity"])
def test_another_transfer_encoding_is_refused(coding: bytes) -> None:
    status = refusal(b"POST / HTTP/1.1", HOST + b"Transfer-Encoding: " + coding + b"\r\n")
    assert status in (400, 501)


def test_http_1_0_has_no_chunks_and_needs_no_host() -> None:
    assert refusal(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked\r\n") == 400
    assert read(b"GET / HTTP/1.0", b"").request.path == "/"


def test_a_head_has_bounds() -> None:
    many = b"".join(b"h%d: v\r\n" % number for number in range(MAX_HEADERS - 1))
    assert len(read(headers=HOST + many).request.headers) == MAX_HEADERS
    assert refusal(headers=HOST + many + b"one: more\r\n") == 431
    assert refusal(headers=HOST + b"a: " + b"x" * MAX_HEAD_BYTES + b"\r\n") == 431
    assert refusal(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1") == 414


@pytest.mark.parametrize("beginning", [b"\x16\x03\x01", b"{", b"GET / HTTP/1.1\nHost: a\n\n"])
def test_bytes_that_begin_no_request_are_refused_before_their_end(beginning: bytes) -> None:
    with pytest.raises(BadRequest):
        check_beginning(beginning)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(rest: bytes) -> None:
    try:
        result = read_head(b"GET / HTTP/1.1\r\nHost: h\r\n" + rest + b"\r\n\r\n", "")
    except BadRequest:
        return
    # What was accepted has no line that a lenient parser would read as another header.
    assert b"\n" not in rest.replace(b"\r\n", b"")
    assert result.request.headers["host"] == "h"
