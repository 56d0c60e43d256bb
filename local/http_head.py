"""Reads the head of a request: its request line and headers (RFC 9112, sections 2 to 5).

httptools (llhttp) parses them strictly. A head that two parsers could read in two ways is refused,
so that no proxy in front takes a part of one request for another (request smuggling).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

import httptools

from local.http_message import HttpRequest

END = b"\r\n\r\n"

MAX_HEAD_BYTES = 16_384
MAX_HEADERS = 100

# The methods that llhttp reads without a rule of its own. Any other is read as PUT.
_PLAIN_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,19}")


class BadRequest(Exception):
    """The bytes of a connection are no request that this server takes."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(slots=True)
class Head:
    """The head of a request: the request so far, and how its body is framed.

    ``length`` is that of the body; None means that it is chunked.
    """

    request: HttpRequest
    length: int | None
    keep_alive: bool
    expects_continue: bool
    is_http_1_0: bool


def check_beginning(beginning: bytes) -> None:
    """Raise ``BadRequest`` if ``beginning`` cannot become a head, however it goes on."""
    if not _METHOD.match(beginning):
        raise _malformed("no request begins like this")
    if len(beginning) > MAX_HEAD_BYTES:
        raise _too_long(beginning)
    _refuse_bare_line_feeds(beginning)


def read_head(head: bytes, client: str) -> Head:
    """Read a whole head, ``END`` included, of the client at this address.

    Raises ``BadRequest``.
    """
    if len(head) > MAX_HEAD_BYTES:
        raise _too_long(head)
    _refuse_bare_line_feeds(head)
    method, target, version, lines = _split(head)
    parsed = _Headers()
    parsed.read(lines)
    headers = parsed.by_name
    authority, path, query = _read_target(target)
    if authority is not None:
        headers["host"] = authority  # RFC 9112, 3.2.2
    is_http_1_0 = version == b"HTTP/1.0"
    if not is_http_1_0 and "host" not in headers:
        raise _malformed("a request needs a Host header")
    connection = headers.get("connection", "").lower()
    keep_alive = "keep-alive" in connection if is_http_1_0 else "close" not in connection
    return Head(
        request=HttpRequest(method, path, query, headers, client),
        length=_body_length(headers, is_http_1_0=is_http_1_0),
        keep_alive=keep_alive,
        expects_continue=not is_http_1_0 and headers.get("expect", "").lower() == "100-continue",
        is_http_1_0=is_http_1_0,
    )


class _Headers:
    """Receives the headers from the parser. Their names are in lower case."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}
        self._count = 0
        self._complete = False

    def read(self, lines: bytes) -> None:
        """Read a head. Raises ``BadRequest``."""
        try:
            httptools.HttpRequestParser(self).feed_data(lines)
        except httptools.HttpParserUpgrade:
            pass  # an offer, which a server may ignore (RFC 9110, 7.8)
        except httptools.HttpParserCallbackError as error:
            # The parser keeps the error of a callback here.
            if isinstance(error.__context__, BadRequest):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise _malformed(str(error)) from error
        if not self._complete:
            raise _malformed("the head does not end where it should")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. One in several lines is their values with commas (RFC 9110, 5.3)."""
        self._count += 1
        if self._count > MAX_HEADERS:
            raise BadRequest(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"A request may have at most {MAX_HEADERS} headers.",
            )
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        if key not in self.by_name:
            self.by_name[key] = text
        elif key in ("host", "content-length", "transfer-encoding"):
            raise _malformed(f"there are two {key} headers")
        else:
            self.by_name[key] += f",{text}"

    def on_headers_complete(self) -> None:
        """Note the end of the headers."""
        if self._complete:
            raise _malformed("there are two heads")
        self._complete = True


def _split(head: bytes) -> tuple[str, str, bytes, bytes]:
    """Return method, target and version of a head, and the lines for the parser."""
    line, _, rest = head.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not _METHOD.fullmatch(parts[0]):  # noqa: PLR2004 - RFC 9112, 3
        raise _malformed("the request line must be: METHOD target HTTP/1.1")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if _VERSION.fullmatch(version):
            raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Send HTTP/1.1.")
        raise _malformed("the request line must be: METHOD target HTTP/1.1")
    if method not in _PLAIN_METHODS:
        head = b"PUT %b %b\r\n%b" % (target, version, rest)
    return method.decode(), target.decode("latin-1"), version, head


def _read_target(target: str) -> tuple[str | None, str, str]:
    """Return the authority of an absolute target, the decoded path, and the query."""
    authority = None
    if not target.startswith("/") and target != "*":
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise _malformed("the target must be a path or an http URL")
        authority, target = absolute[1].rpartition("@")[2], absolute[2]
    path, _, query = target.partition("#")[0].partition("?")
    return authority, unquote(path) if "%" in path else path or "/", query


def _body_length(headers: dict[str, str], *, is_http_1_0: bool) -> int | None:
    """Return the length of the body; None if it is chunked."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is None:
        if length is None:
            return 0
        if not _LENGTH.fullmatch(length):
            raise _malformed("Content-Length must be a number")
        return int(length)
    if length is not None or is_http_1_0:
        raise _malformed("Transfer-Encoding does not go with Content-Length or HTTP/1.0")
    if coding.lower() != "chunked":
        raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, "The only Transfer-Encoding is chunked.")
    return None


def _refuse_bare_line_feeds(head: bytes) -> None:
    if head.count(b"\n") != head.count(b"\r\n"):
        raise _malformed("lines must end with CR LF")


def _too_long(head: bytes) -> BadRequest:
    if b"\r\n" not in head[:MAX_HEAD_BYTES]:
        return BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "The path or query is too long.")
    return BadRequest(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"The request line and headers may have at most {MAX_HEAD_BYTES} bytes.",
    )


def _malformed(reason: str) -> BadRequest:
    return BadRequest(HTTPStatus.BAD_REQUEST, f"This is not valid HTTP: {reason}.")
