"""A response that is read by our own rules and up to a limit.

``http.client`` refuses some responses whose status line was a success, because of header lines that
decide nothing. It also reads any number of interim responses.
"""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPMessage, HTTPResponse, RemoteDisconnected
from typing import Any

from chalicelib.aws.sender.in_flight_call import InFlightCall
from chalicelib.domain.response import MAX_RESPONSE_BYTES, ResponseTooLong
from chalicelib.domain.response_head import (
    MAX_HEAD_BYTES,
    Framing,
    HeadReader,
    NotHttp,
    ResponseHead,
)


class UnreadableResponse(HTTPException):
    """Wraps an error of our reader for urllib3, which closes a connection on an HTTPException."""


class BoundedReader(io.RawIOBase):
    """Reads the bytes of one response, up to a limit, and notes on the call that it has begun."""

    def __init__(self, raw: io.RawIOBase, call: InFlightCall) -> None:
        self._raw = raw
        self._call = call
        self._left = MAX_RESPONSE_BYTES

    def readable(self) -> bool:
        """Return True: ``io.BufferedReader`` asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer`` and return the number of bytes; 0 at the end of the connection.

        Raises ``UnreadableResponse`` beyond the limit.
        """
        count = self._raw.readinto(buffer) or 0
        self._left -= count
        if self._left < 0:
            raise UnreadableResponse from ResponseTooLong()
        self._call.response_began = self._call.response_began or count > 0
        return count

    def close(self) -> None:
        """Close the socket's file, so that the connection can be used for the next call."""
        self._raw.close()
        super().close()


class BoundedResponse(HTTPResponse):
    """The final response to one call."""

    def __init__(self, call: InFlightCall, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._call = call
        # CPython 3.10-3.14: HTTPResponse has set ``fp`` to a BufferedReader over the socket and
        # reads everything from there. Our reader goes between the two.
        self.fp = io.BufferedReader(BoundedReader(self.fp.detach(), call))

    def begin(self, *_arguments: Any, **_options: Any) -> None:
        """Read the head. CPython 3.10-3.14: sets what ``read1`` and http.client go by later."""
        head = self._read_head()
        self.code = self.status = head.status
        self.version, self.reason = 11, ""
        self.headers = self.msg = HTTPMessage()
        self._call.head = head
        self.chunked, self.chunk_left = head.framing is Framing.CHUNKED, None
        lengths = {Framing.NONE: 0, Framing.LENGTH: head.length}
        self.length = lengths.get(head.framing)
        self.will_close = not head.keep_alive

    def _read_head(self) -> ResponseHead:
        reader = HeadReader()
        while not reader.complete:
            # A line at a time: the bytes of the body stay in the buffer.
            line = self.fp.readline(MAX_HEAD_BYTES + 1)
            try:
                if line:
                    reader.feed(line)
                else:
                    reader.end()
            except (NotHttp, ResponseTooLong) as error:
                raise UnreadableResponse from error
            if reader.head is not None:
                self._call.note_status(reader.head.status)
            elif not line:
                raise RemoteDisconnected("closed without a status line")
        assert reader.head is not None
        return reader.head
