"""The beginning of a failed response's body, as text for people who look for the reason."""

from __future__ import annotations

import re

from chalicelib.domain.response_head import Framing, ResponseHead

MAX_EXCERPT_BYTES = 256
"""Bytes of a body that are kept. They lie in the timer's row."""

_MAX_RAW_BYTES = 4 * MAX_EXCERPT_BYTES
"""Bytes looked at, the sizes of chunks included."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[^\n]*\n")


class Excerpt:
    """Collects the beginning of one body from pieces of the stream behind its head."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._raw = bytearray()
        # Compressed bytes are no text, and to decompress what a receiver sent could cost anything.
        self.done = head.framing is Framing.NONE or not has_text(head)

    def feed(self, data: bytes) -> None:
        """Look at ``data``; ``done`` tells whether more could change the text."""
        if self.done:
            return
        self._raw += data[: _MAX_RAW_BYTES - len(self._raw)]
        length = self._head.length if self._head.framing is Framing.LENGTH else None
        enough = MAX_EXCERPT_BYTES if length is None else min(length, MAX_EXCERPT_BYTES)
        body, ended = self._body()
        self.done = ended or len(body) >= enough or len(self._raw) >= _MAX_RAW_BYTES

    def text(self) -> str | None:
        """Return what was collected, None if that is nothing."""
        if not has_text(self._head):
            return None
        return excerpt_text(self._body()[0])

    def _body(self) -> tuple[bytes, bool]:
        """Return the bytes of the body so far, and whether it has ended."""
        if self._head.framing is Framing.LENGTH:
            body = bytes(self._raw[: self._head.length])
            return body, len(body) == self._head.length
        if self._head.framing is not Framing.CHUNKED:
            return bytes(self._raw), False
        body, rest = b"", bytes(self._raw)
        while found := _CHUNK_SIZE.match(rest):
            size = int(found[1], 16)
            body += rest[found.end() : found.end() + size]
            if size == 0:
                return body, True
            rest = rest[found.end() + size :].lstrip(b"\r\n")
        return body, False


def has_text(head: ResponseHead) -> bool:
    """Tell whether what follows a head is a body that can be read as text."""
    return not (head.encoded or head.cut_off)


def excerpt_text(body: bytes) -> str | None:
    """Return the beginning of a body as text without control characters, None if it has none."""
    text = body[:MAX_EXCERPT_BYTES].decode("utf-8", "replace")
    # Half a character at the end is no fault of the receiver.
    text = text.rstrip("\N{REPLACEMENT CHARACTER}") or text
    # Control characters could harm a terminal.
    return _CONTROLS.sub(" ", text).strip() or None
