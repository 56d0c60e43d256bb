"""Writes responses (RFC 9112, 4 and 5)."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from http import HTTPStatus

from chalicelib.domain.errors import RequestError
from chalicelib.rest.problems import PROBLEM_JSON, document_of
from local.http_head import BadRequest
from local.http_message import HttpResponse

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


def encode(response: HttpResponse, *, keep_alive: bool, is_http_1_0: bool) -> bytes:
    """Return the bytes of a response."""
    lines = [_STATUS_LINES[response.status], _date.header()]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if not keep_alive:
        lines.append("Connection: close")
    elif is_http_1_0:
        lines.append("Connection: keep-alive")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1") + response.body


def refusal(error: BadRequest) -> HttpResponse:
    """Return the response to bytes that are no valid request: a problem document."""
    document = document_of(RequestError(error.detail), error.status)
    body = json.dumps(document).encode()
    headers = {"Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
    return HttpResponse(error.status, headers, body)


class _Date:
    """The Date header (RFC 9110, 6.6.1), which is written once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._header = ""

    def header(self) -> str:
        """Return the header of now."""
        second = int(time.time())
        if second != self._second:
            self._second, self._header = second, f"Date: {formatdate(second, usegmt=True)}"
        return self._header


_date = _Date()
