"""A response that is read up to a limit, and whose headers must be complete.

``http.client`` has no such limit: it reads interim responses for ever. It also accepts a response
that breaks off within its headers, as if these were all of them.
"""

from __future__ import annotations

import io
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any

from chalicelib.aws.sender.in_flight_call import InFlightCall
from chalicelib.domain.response import MAX_RESPONSE_BYTES, ResponseTooLong


class UnreadableResponse(ResponseTooLong, HTTPException):
    """``ResponseTooLong`` for urllib3, which closes a connection on an ``HTTPException``."""


class BoundedReader(io.RawIOBase):
    """Reads the bytes of one response up to a limit, and sets ``response_began`` of its call."""

    def __init__(self, raw: io.RawIOBase, call: InFlightCall) -> None:
        self._raw = raw
        self._call = call
        self._left = MAX_RESPONSE_BYTES
        self.headers_complete = False

    def readable(self) -> bool:
        """Return True, as ``io.BufferedReader`` demands."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer`` and return the number of bytes, 0 at the end of the connection.

        Raises ``UnreadableResponse`` beyond the limit, and ``HTTPException`` if the connection ends
        within the headers.
        """
        count = self._raw.readinto(buffer) or 0
        self._left -= count
        if self._left < 0:
            raise UnreadableResponse
        if not count and self._call.response_began and not self.headers_complete:
            # http.client would treat the end of the connection as the end of the headers.
            raise HTTPException("closed in the middle of its headers")
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
        # CPython 3.10-3.14: HTTPResponse has set ``fp`` to a BufferedReader over the socket, and
        # reads everything from it. Put our reader between the two.
        self._reader = BoundedReader(self.fp.detach(), call)
        self.fp = io.BufferedReader(self._reader)

    def begin(self, *arguments: Any, **options: Any) -> None:
        """Read the status and the headers. Skip interim responses (RFC 9110, section 15.2)."""
        super().begin(*arguments, **options)
        # CPython 3.10-3.14: ``begin`` itself skips 100 only, and does nothing if ``headers`` is
        # set. 101 is final, because we never ask for another protocol.
        while HTTPStatus.SWITCHING_PROTOCOLS < self.status < HTTPStatus.OK:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin(*arguments, **options)
        self._reader.headers_complete = True
