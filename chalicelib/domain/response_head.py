"""Reading the head of a receiver's response: the status, Retry-After, and how the body is framed.

The status line decides the outcome of a call. Header lines that are odd, too many or too long cost
the connection and nothing else: they cannot turn a success into a failure. So this reader is
lenient where RFC 9112 lets a parser refuse, and never reuses a connection whose framing it had to
guess.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from chalicelib.domain.response import ResponseTooLong

MAX_HEAD_BYTES = 16_384
"""Bytes read of the status lines and headers of one response, interim responses included."""

MAX_INTERIM_RESPONSES = 8
"""Interim responses (1xx) accepted before the final one. A receiver needs one or two."""

_STATUS_LINE = re.compile(rb"HTTP/(\d+)\.(\d+)[ \t]+([1-9]\d{2})(?!\d)")
_SWITCHING_PROTOCOLS = 101
_INTERIM = range(100, 200)
_WITHOUT_BODY = (204, 304)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_PREFIX = b"HTTP/"


class NotHttp(ValueError):
    """The receiver sent something that is no HTTP response. The message has none of its bytes."""


class Framing(enum.Enum):
    """How the end of a body is found (RFC 9112, section 6.3)."""

    NONE = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()


@dataclass(slots=True)
class ResponseHead:
    """What matters of a final head. ``length`` counts only where the framing is by length.

    ``again`` is the value of ``timer-again``. ``encoded`` tells that the body is compressed,
    ``cut_off`` that the head did not end within its limits, so that headers may follow. A
    sender puts the beginning of a failed response's body into ``excerpt``.
    """

    status: int
    retry_after: str = ""
    again: str | None = None
    encoded: bool = False
    cut_off: bool = False
    excerpt: str | None = None
    framing: Framing = Framing.UNTIL_CLOSE
    length: int = 0
    keep_alive: bool = True


class HeadReader:
    """Reads a head from pieces of a stream.

    ``head`` is set as soon as the final status line is read, and ``complete`` once nothing of the
    head is to come, or its limits are reached: then the status stands.
    """

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.complete = False
        self._buffer = bytearray()
        self._left = MAX_HEAD_BYTES
        self._interim = 0
        self._in_interim = False
        self._length: bytes | None = None
        self._coding: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Read ``data``; return the bytes behind the head once it is complete.

        Raises ``NotHttp``, and ``ResponseTooLong`` at the limits without a final status line.
        """
        self._buffer += data
        while not self.complete:
            end = self._buffer.find(b"\n")
            if end < 0:
                self._check_partial_line()
                return b""
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            self._spend(end + 1)
            if not self.complete:
                self._read_line(line)
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def end(self) -> None:
        """Note that the connection has ended: what is known stands."""
        if self.head is not None and not self.complete:
            self._give_up()

    def _check_partial_line(self) -> None:
        if self.head is None and not self._in_interim:
            start = bytes(self._buffer[: len(_PREFIX)])
            if not _PREFIX.startswith(start.lstrip(b"\r")):
                raise NotHttp("it does not begin with a status line")
        if len(self._buffer) > self._left:
            self._exceed()

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            self._exceed()

    def _exceed(self) -> None:
        if self.head is None:
            raise ResponseTooLong
        self._give_up()

    def _give_up(self) -> None:
        """End the head here. What follows cannot be told from a body, so the connection is lost."""
        assert self.head is not None
        self.head.keep_alive = False
        self.head.cut_off = True
        self.head.framing = Framing.UNTIL_CLOSE
        self.complete = True

    def _read_line(self, line: bytes) -> None:
        if self._in_interim:
            self._in_interim = bool(line)
        elif self.head is None:
            self._read_status_line(line)
        elif line:
            self._read_header(self.head, line)
        else:
            self._conclude(self.head)

    def _read_status_line(self, line: bytes) -> None:
        if not line:
            return  # some servers send an empty line behind the response before
        found = _STATUS_LINE.match(line)
        if found is None:
            raise NotHttp("it does not begin with a status line")
        major, minor, status = found[1], found[2], int(found[3])
        if status in _INTERIM and status != _SWITCHING_PROTOCOLS:
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                raise ResponseTooLong
            self._in_interim = True
            return
        self.head = ResponseHead(status, keep_alive=(major, minor) == (b"1", b"1"))

    def _read_header(self, head: ResponseHead, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            # No colon, a blank before it, a folded line: it may have meant the framing.
            head.keep_alive = False
            name = name.strip()
        name, value = name.lower(), value.strip()
        if name == b"retry-after":
            head.retry_after = value.decode("latin-1")
        elif name == b"timer-again":
            head.again = value.decode("latin-1")
        elif name == b"content-encoding":
            head.encoded = value.lower() not in (b"", b"identity")
        elif name == b"connection":
            options = {option.strip() for option in value.lower().split(b",")}
            head.keep_alive = head.keep_alive and b"close" not in options
        elif name == b"content-length":
            head.keep_alive = head.keep_alive and self._length in (None, value)
            self._length = value
        elif name == b"transfer-encoding":
            head.keep_alive = head.keep_alive and self._coding is None
            self._coding = value.lower()

    def _conclude(self, head: ResponseHead) -> None:
        self.complete = True
        if head.status in _WITHOUT_BODY:
            head.framing = Framing.NONE
        elif self._coding is not None:
            head.framing = Framing.CHUNKED if self._coding == b"chunked" else Framing.UNTIL_CLOSE
            head.keep_alive = head.keep_alive and self._length is None
        elif self._length is not None and _DIGITS.fullmatch(self._length):
            head.framing, head.length = Framing.LENGTH, int(self._length)
        if head.framing is Framing.UNTIL_CLOSE or head.status == _SWITCHING_PROTOCOLS:
            head.keep_alive = False
