"""Reads the body of a request: as long as its Content-Length, or chunked (RFC 9112, 6 and 7.1).

httptools could read it too, but does not tell where it ends among the bytes that were received.
The next request begins there, and must wait until this one has its response.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Protocol

from local.http_head import BadRequest

MAX_CHUNK_LINE_BYTES = 256
"""The size of a chunk and its extensions, or one trailer."""

MAX_CHUNK_OVERHEAD_BYTES = 16_384
"""Extensions and trailers of one body. Neither is of use here."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_MAX_SIZE_DIGITS = 8
"""What a line of a chunk's size needs. More is overhead."""


class BodyTooLong(Exception):
    """There is more of the body than may be read."""


class Body(Protocol):
    """A body that is being received."""

    def feed(self, received: bytes) -> bytes | None:
        """Take what belongs to the body.

        Return the bytes after its end, None before its end. Raises ``BadRequest`` and
        ``BodyTooLong``.
        """

    def content(self) -> bytes:
        """Return what was received of it."""


class LengthBody:
    """A body with a length."""

    def __init__(self, length: int) -> None:
        self._missing = length
        self._content = bytearray()

    def feed(self, received: bytes) -> bytes | None:
        """Take what belongs to the body; see ``Body``."""
        taken = received[: self._missing]
        self._content += taken
        self._missing -= len(taken)
        return None if self._missing else received[len(taken) :]

    def content(self) -> bytes:
        """Return what was received of it."""
        return bytes(self._content)


class ChunkedBody:
    """A chunked body, at most ``limit`` bytes without the chunks' framing."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._overhead = MAX_CHUNK_OVERHEAD_BYTES
        self._content = bytearray()
        self._rest = b""
        # Bytes that are missing of the chunk, its line end included. 0 before the size of one.
        self._missing = 0
        self._in_trailers = False

    def feed(self, received: bytes) -> bytes | None:
        """Take what belongs to the body; see ``Body``."""
        received, position = self._rest + received, 0
        while True:
            if self._missing:
                position = self._read_chunk(received, position)
                if self._missing:
                    break
            end = received.find(b"\r\n", position, position + MAX_CHUNK_LINE_BYTES + 2)
            if end < 0:
                self._check_partial_line(received, position)
                break
            line, position = received[position:end], end + 2
            if self._ends_with(line):
                return received[position:]
        self._rest = received[position:]
        return None

    def content(self) -> bytes:
        """Return what was received of it."""
        return bytes(self._content)

    def _read_chunk(self, received: bytes, position: int) -> int:
        """Take what there is of a chunk; return the position after it."""
        data = received[position : position + self._missing - 2]
        self._content += data
        self._missing -= len(data)
        position += len(data)
        end = received[position : position + 2]
        if self._missing == 2 and end:  # noqa: PLR2004 - CR LF
            if end not in (b"\r\n", b"\r"):
                raise _malformed("a chunk is longer than its size")
            if end == b"\r\n":
                self._missing = 0
                position += 2
        return position

    def _check_partial_line(self, received: bytes, position: int) -> None:
        """Raise ``BadRequest`` if no line can begin with the rest of the bytes."""
        if len(received) - position > MAX_CHUNK_LINE_BYTES or b"\n" in received[position:]:
            raise _malformed("a line is too long, or ends without CR")

    def _ends_with(self, line: bytes) -> bool:
        """Read a chunk's size or a trailer; return whether it ends the body."""
        self._overhead -= max(0, len(line) - _MAX_SIZE_DIGITS)
        if self._overhead < 0:
            raise _malformed("there are too many extensions or trailers")
        if self._in_trailers:
            if line and not _TRAILER.fullmatch(line):
                raise _malformed("a trailer is no header")
            return not line
        size = _SIZE.fullmatch(line)
        if size is None:
            raise _malformed("the size of a chunk must be hexadecimal")
        length = int(size[1], 16)
        self._room -= length
        if self._room < 0:
            raise BodyTooLong
        self._missing = length + 2 if length else 0
        self._in_trailers = not length
        return False


def _malformed(reason: str) -> BadRequest:
    return BadRequest(
        HTTPStatus.BAD_REQUEST, f"The body is not chunked as HTTP has it (RFC 9112, 7.1): {reason}."
    )
