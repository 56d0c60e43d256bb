"""The bodies of requests: where they end, and which are refused."""

from __future__ import annotations

import contextlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.http_body import (
    MAX_CHUNK_LINE_BYTES,
    MAX_CHUNK_OVERHEAD_BYTES,
    Body,
    BodyTooLong,
    ChunkedBody,
    LengthBody,
)
from local.http_head import BadRequest

NEXT = b"GET / HTTP/1.1\r\n"


def feed(body: Body, *parts: bytes) -> bytes | None:
    """Return what is left behind the end of the body, None if it has not ended."""
    rest: bytes | None = None
    for part in parts:
        assert rest is None
        rest = body.feed(part)
    return rest


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


@pytest.mark.parametrize("size", range(1, 9))
def test_a_body_with_a_length_ends_there_however_it_comes(size: int) -> None:
    sent = b"0123456789" + NEXT
    body, rest, position = LengthBody(10), None, 0
    while rest is None:
        rest = body.feed(sent[position : position + size])
        position += size
    assert body.content() == b"0123456789"
    assert rest + sent[position:] == NEXT


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 30))
def test_a_chunked_body_ends_behind_its_last_chunk_however_it_comes(
    parts: list[bytes], size: int
) -> None:
    sent = chunks(*parts) + NEXT
    body, rest, position = ChunkedBody(1_000), None, 0
    while rest is None:
        rest = body.feed(sent[position : position + size])
        position += size
    assert body.content() == b"".join(parts)
    assert rest + sent[position:] == NEXT


@pytest.mark.parametrize(
    "sent",
    [
        b"3;name=value\r\nabc\r\n0\r\n\r\n",
        b'3 ; name="a b"\r\nabc\r\n0;x\r\n\r\n',
        b"0003\r\nabc\r\n000\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTrailer: value\r\nOther: value\r\n\r\n",
    ],
    ids=["extension", "quoted extension", "zeros", "trailers"],
)
def test_extensions_and_trailers_are_skipped(sent: bytes) -> None:
    body = ChunkedBody(100)
    assert feed(body, sent + NEXT) == NEXT
    assert body.content() == b"abc"


# RFC 9112, 7.1: what a lenient parser may take for a size or for the end of a chunk.
@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1_0\r\n",
        b"g\r\n",
        b"1\na\n0\n\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1;\x00\r\na\r\n",
        b"123456789\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n folded: value\r\n\r\n",
        b"0\r\na: b\x00\r\n\r\n",
        b"1" * (MAX_CHUNK_LINE_BYTES + 1),
    ],
)
def test_a_body_that_is_not_chunked_as_it_says_is_refused(sent: bytes) -> None:
    with pytest.raises(BadRequest):
        feed(ChunkedBody(100), sent)
    with pytest.raises(BadRequest):
        feed(ChunkedBody(100), *(sent[i : i + 1] for i in range(len(sent))))


def test_a_chunked_body_may_be_as_long_as_the_limit() -> None:
    body = ChunkedBody(10)
    assert feed(body, chunks(b"01234", b"56789")) == b""
    assert body.content() == b"0123456789"


@pytest.mark.parametrize("sent", [chunks(b"01234", b"567890"), b"ffffffff\r\n", b"b\r\n"])
def test_a_chunked_body_beyond_the_limit_is_refused_before_it_comes(sent: bytes) -> None:
    with pytest.raises(BodyTooLong):
        feed(ChunkedBody(10), sent)


@pytest.mark.parametrize(
    "line", [b"1;" + b"x" * 200 + b"\r\na\r\n", b"0\r\n" + (b"a: " + b"x" * 200 + b"\r\n") * 100]
)
def test_extensions_and_trailers_have_a_bound(line: bytes) -> None:
    sent = line * (MAX_CHUNK_OVERHEAD_BYTES // 100)
    with pytest.raises(BadRequest):
        ChunkedBody(1_000_000).feed(sent)


class Llhttp:
    """Reads a chunked body as httptools does."""

    def __init__(self, sent: bytes) -> None:
        self.content = b""
        self.is_complete = False
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        with contextlib.suppress(httptools.HttpParserError):
            httptools.HttpRequestParser(self).feed_data(head + sent)

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self.content += data

    def on_message_complete(self) -> None:
        self.is_complete = True


PIECES = [
    b"0",
    b"3",
    b"3",
    b"abc",
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b";x",
    b" ",
    b"A: b",
    b"G",
]


@given(
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=16).map(b"".join),
        st.builds(
            lambda sent, at, piece: sent[: at % len(sent)] + piece + sent[at % len(sent) :],
            st.lists(st.binary(min_size=1, max_size=9), max_size=4).map(
                lambda parts: chunks(*parts)
            ),
            st.integers(0, 99),
            st.sampled_from([b"", *PIECES]),
        ),
    )
)
def test_a_body_that_is_read_is_what_another_parser_reads(sent: bytes) -> None:
    body = ChunkedBody(1_000)
    try:
        rest = body.feed(sent)
    except (BadRequest, BodyTooLong):
        return
    if rest is not None:
        other = Llhttp(sent[: len(sent) - len(rest)])
        assert other.is_complete
        assert other.content == body.content()
        assert not Llhttp(sent[: len(sent) - len(rest) - 1]).is_complete, (
            "it ends there, not before"
        )
