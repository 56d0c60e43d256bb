"""The content of a webhook, as far as the client chose it, and the rules for it."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET")
DEFAULT_METHOD = "POST"

MAX_BODY_BYTES = 65_536
"""The largest body that is sent, in bytes."""

MAX_HEADERS = 32
MAX_HEADERS_BYTES = 8_192
"""How many headers a client may add, and their names and values together in bytes."""

MAX_CONTENT_TYPE_CHARACTERS = 255

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"

# Framing and connection (RFC 9110, 7.6.1; RFC 9112), and what we say ourselves.
_RESERVED = {
    *("host", "content-length", "transfer-encoding", "connection", "keep-alive"),
    *("te", "trailer", "upgrade", "expect"),
}
_RESERVED_PREFIXES = ("proxy-", "webhook-", "timer-")

_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TCHARS)
_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")
"""Visible ASCII with blanks inside (RFC 9110, 5.5). Nothing that a receiver reads as two lines."""

CONTENT_TYPE_PATTERN = rf"^{_TCHARS}/{_TCHARS}([\t ]*;[\t -~]*)?$"
_CONTENT_TYPE = re.compile(CONTENT_TYPE_PATTERN.strip("^$"))

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The method, headers and body of a webhook. Default: an empty POST to the URL and ``/<id>``.

    ``headers`` are names and values in the client's order. ``content_type`` is the Content-Type of
    ``body``, None where no header is sent. ``append_id`` tells whether the id is appended.
    """

    method: str = DEFAULT_METHOD
    # Not shown: headers and bodies may have secrets of the client.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    append_id: bool = True


NO_CONTENT = Content()
"""The content of most webhooks: none."""


def header_name_fault(name: str) -> str | None:
    """Return why a client may not send a header of this name, None if it may."""
    lowered = name.lower()
    if not _NAME.fullmatch(name):
        return "is not the name of a header (RFC 9110)"
    if lowered in _RESERVED or lowered.startswith(_RESERVED_PREFIXES):
        return "cannot be set: it would break the request, or we send it ourselves"
    if lowered == "content-type":
        return "is set by content_type"
    return None


def check_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the headers of a client as they are sent.

    Raises ``ValueError``, which names the header and never shows a value.
    """
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"has {len(headers)} headers; at most {MAX_HEADERS} are allowed")
    # Before the names are looked at: an error repeats one of them.
    size = sum(len(name.encode(errors="replace")) for name in headers) + sum(
        len(value.encode(errors="replace")) for value in headers.values()
    )
    if size > MAX_HEADERS_BYTES:
        raise ValueError(f"may have at most {MAX_HEADERS_BYTES} bytes in all")
    seen: set[str] = set()
    for name, value in headers.items():
        shown = json.dumps(name[:40])
        fault = header_name_fault(name)
        if fault:
            raise ValueError(f"{shown} {fault}")
        if name.lower() in seen:
            raise ValueError(f"{shown} is given more than once, in another case")
        seen.add(name.lower())
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of {shown} may have visible ASCII characters, with blanks between"
            )
    return tuple(headers.items())


def check_content_type(text: str) -> str:
    """Return a Content-Type. Raises ``ValueError`` if it is none (RFC 9110, 8.3)."""
    if len(text) > MAX_CONTENT_TYPE_CHARACTERS or not _CONTENT_TYPE.fullmatch(text):
        raise ValueError("must be a media type such as application/json")
    return text.rstrip()


def body_of(value: Any) -> tuple[bytes, str]:
    """Return the bytes of a body, and the type that it has unless the client names one.

    A string is sent as it is, any other JSON value as compact JSON. Raises ``ValueError``.
    """
    try:
        if isinstance(value, str):
            return _limited(value.encode()), TEXT
        return _limited(_to_json(value).encode()), JSON
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair, which no encoding has") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def body_of_base64(text: str) -> bytes:
    """Return the bytes of a body in Base64 (RFC 4648, section 4). Raises ``ValueError``."""
    try:
        return _limited(base64.b64decode(text, validate=True))
    except (binascii.Error, UnicodeError):
        raise ValueError("must be Base64 with padding (RFC 4648)") from None


def _limited(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"may have at most {MAX_BODY_BYTES} bytes as it is sent")
    return body
