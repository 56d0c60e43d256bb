"""The bytes of a call, and the receiver that they go to."""

from __future__ import annotations

import re
from typing import NamedTuple

from chalicelib.domain.failure import InvalidUrl
from chalicelib.domain.webhook import Call

_HOST = r"\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)"
_URL = re.compile(
    rf"(https?)://((?:{_HOST})(?::([0-9]{{1,5}}))?)(?:/([!-~]*)|(\?[!-~]*))?", re.ASCII
)
_HEADER = re.compile(r"[!-9;-~]+: [\t -~]*")
"""A header as we send it: ASCII, without line breaks."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535


class Origin(NamedTuple):
    """Where connections lead (RFC 6454). ``host`` is a name or an address without brackets."""

    scheme: str
    host: str
    port: int


def request_of(call: Call) -> tuple[Origin, bytes]:
    """Return where ``call`` goes, and its HTTP/1.1 request.

    The URL is canonical (``domain.target``): its path and query go out byte for byte. Raises
    ``InvalidUrl`` for any other, and for a header that a receiver could read as two.
    """
    found = _URL.fullmatch(call.url)
    if found is None:
        raise InvalidUrl
    scheme, authority, address, name, port, path, query = found.groups()
    origin = Origin(scheme, address or name, int(port) if port else _DEFAULT_PORTS[scheme])
    if origin.port > _MAX_PORT:
        raise InvalidUrl
    lines = [f"{call.method} /{path or query or ''} HTTP/1.1", f"Host: {authority}"]
    if call.says_length:
        lines.append(f"Content-Length: {len(call.body)}")
    for name, value in call.headers.items():
        line = f"{name}: {value}"
        if not _HEADER.fullmatch(line):
            raise InvalidUrl
        lines.append(line)
    return origin, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + call.body
