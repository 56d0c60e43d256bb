"""Skipping the body of a response, so that its connection can be used again.

A body never decides the outcome of a call. If it is too long or broken, or if more bytes follow it,
only the connection is closed.
"""

from __future__ import annotations

import re

from chalicelib.domain.response import MAX_DRAIN_BYTES
from chalicelib.domain.response_head import Framing, ResponseHead

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;.*)?")
_MAX_LINE_BYTES = 4_096
"""Bytes of a chunk's size line, or of one trailer."""


class BodySkipper:
    """Skips one body.

    ``ended`` tells that nothing more is read, ``clean`` that the body ended where it should.
    """

    def __init__(self, head: ResponseHead) -> None:
        self.ended = False
        self.clean = False
        self._left = 0
        self._budget = MAX_DRAIN_BYTES
        self._buffer = bytearray()
        self._chunked = head.framing is Framing.CHUNKED
        self._in_trailers = False
        self._after_chunk = False
        if not head.keep_alive:
            self._end(clean=False)
        elif head.framing is Framing.LENGTH:
            self._left = head.length
            if self._left > self._budget:
                self._end(clean=False)
            elif self._left == 0:
                self._end(clean=True)
        elif head.framing is Framing.NONE:
            self._end(clean=True)

    def feed(self, data: bytes) -> None:
        """Skip ``data``."""
        if not data:
            return
        if self.ended:
            self.clean = False  # bytes that nobody asked for
            return
        self._budget -= len(data)
        if self._budget < 0:
            self._end(clean=False)
        elif self._chunked:
            self._skip_chunks(data)
        else:
            self._skip_length(data)

    def _skip_length(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left <= 0:
            self._end(clean=self._left == 0)

    def _skip_chunks(self, data: bytes) -> None:
        self._buffer += data
        while not self.ended and self._skip_one():
            pass
        if self.ended and self._buffer:
            self.clean = False

    def _skip_one(self) -> bool:
        """Skip a piece of a chunk, or a line; return False if more bytes are needed."""
        if self._left:
            piece = min(self._left, len(self._buffer))
            del self._buffer[:piece]
            self._left -= piece
            return piece > 0
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > _MAX_LINE_BYTES:
                self._end(clean=False)
            return False
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        self._read_line(line)
        return True

    def _read_line(self, line: bytes) -> None:
        if self._in_trailers:
            if not line:
                self._end(clean=True)
        elif self._after_chunk:
            self._after_chunk = False
            if line:
                self._end(clean=False)
        else:
            found = _CHUNK_SIZE.fullmatch(line)
            if found is None:
                self._end(clean=False)
                return
            self._left = int(found[1], 16)
            self._in_trailers = self._left == 0
            self._after_chunk = self._left > 0

    def _end(self, *, clean: bool) -> None:
        self.ended, self.clean = True, clean
