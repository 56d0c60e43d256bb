"""Webhook targets: which URLs are accepted, and which call is made for a timer.

The URL that is called is canonical ASCII, built here from checked parts. So no sender parses the
client's text a second time, in a way that might differ.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from chalicelib.domain.signing import signature
from chalicelib.domain.timer import Timer
from chalicelib.domain.webhook import Call

MAX_URL_CHARACTERS = 2048
USER_AGENT = "webhook-timers/1"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_MAX_HOST_CHARACTERS = 253
_MAX_LABEL_CHARACTERS = 63
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]*|[0-9]+", re.ASCII)
_BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]*)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEPT_IN_PATH = "!$%&'()*+,/:;=@~[]"
_KEPT_IN_QUERY = _KEPT_IN_PATH + "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL taken apart and made canonical. ``host`` carries no brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    credentials: tuple[bytes, bytes] | None

    def url(self, timer_id: int) -> str:
        """Return the URL to call: the id appended to the path, the query behind it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        slash = "" if self.path.endswith("/") else "/"
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{host}{port}{self.path}{slash}{timer_id}{query}"


@functools.lru_cache(maxsize=1024)
def parse_target(url: str) -> Target:
    """Take apart an absolute http or https URL (RFC 3986; other characters as UTF-8 escapes).

    Escapes stay as they are, the fragment goes. Raises ``ValueError`` with what is wrong.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"must have at most {MAX_URL_CHARACTERS} characters")
    if _CONTROL.search(url):
        raise ValueError("must not contain control characters")
    if url != url.strip():
        raise ValueError("must not have a blank around it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not a valid URL: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("must be an absolute http or https URL")
    if "\\" in parts.netloc or " " in parts.netloc:
        raise ValueError("must not have a blank or a backslash before its path")
    if port == 0:
        raise ValueError(f"must have a port between 1 and {_MAX_PORT}")
    return Target(
        scheme=parts.scheme,
        host=_host(parts.netloc, parts.hostname),
        port=port or _DEFAULT_PORTS[parts.scheme],
        path=quote(parts.path, safe=_KEPT_IN_PATH),
        query=quote(parts.query, safe=_KEPT_IN_QUERY),
        credentials=_credentials(parts.username, parts.password),
    )


def prepare(
    timer: Timer, store_id: str, now: int, keys: Sequence[bytes] = (), *, notice: bool = False
) -> Call:
    """Return the call for an attempt at ``timer`` that starts at ``now`` (epoch ms).

    With ``notice`` it is the call to ``on_failure_url``. ``webhook-id`` is the same on every
    attempt and differs between stores and tenants. A notice has its own for every final failure,
    because a replayed timer may fail several times. ``webhook-timestamp`` is the time of the
    attempt, in seconds. Every key signs (Standard Webhooks 1.0).

    Raises ``ValueError`` when the URL cannot be called.
    """
    target = parse_target((timer.options.on_failure_url or "") if notice else timer.url)
    webhook_id = f"{store_id}.{timer.tenant}.{timer.id}"
    if notice:
        webhook_id += f".failed.{timer.version}"
    headers = {
        "User-Agent": USER_AGENT,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now // 1000),
    }
    if keys:
        headers["webhook-signature"] = signature(keys, webhook_id, now // 1000)
    if target.credentials:
        user, password = target.credentials
        headers["Authorization"] = "Basic " + base64.b64encode(user + b":" + password).decode()
    return Call(url=target.url(timer.id), headers=headers, timeout_s=timer.options.timeout_s)


def _credentials(user: str | None, password: str | None) -> tuple[bytes, bytes] | None:
    if not user and not password:
        return None
    return unquote_to_bytes(user or ""), unquote_to_bytes(password or "")


def _host(netloc: str, host: str | None) -> str:
    if not host:
        raise ValueError("must have a host")
    if "[" in netloc:
        return _ipv6(netloc, host)
    name = _ascii_name(host)
    labels = name.removesuffix(".").split(".")
    long = len(name) > _MAX_HOST_CHARACTERS or any(
        len(label) > _MAX_LABEL_CHARACTERS for label in labels
    )
    if long or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("must have a valid host name")
    return _ipv4(labels) if _NUMBER.fullmatch(labels[-1]) else name


def _ipv4(parts: Sequence[str]) -> str:
    """Return the dotted form of an IPv4 address in any notation: decimal, octal, short, …

    A host that ends in a number is an address or nothing (WHATWG URL, host parsing): resolvers
    read ``127.1`` and ``2130706433`` as one, and not all of them alike.
    """
    try:
        *first, last = (_number(part) for part in parts)
        rest = last.to_bytes(max(4 - len(first), 1), "big")
        return str(ipaddress.IPv4Address(bytes(first) + rest))
    except (ValueError, OverflowError) as error:
        raise ValueError("must have a valid host name or IPv4 address") from error


def _number(part: str) -> int:
    if not _NUMBER.fullmatch(part):
        raise ValueError
    if part[:2] in {"0x", "0X"}:
        return int(part[2:] or "0", 16)
    return int(part, 8 if part[0] == "0" else 10)


def _ipv6(netloc: str, host: str) -> str:
    if "%" in host:
        raise ValueError("must not have a zone in its IPv6 address")
    # Some versions of urlsplit overlook what stands beside the brackets.
    if not _BRACKETED.fullmatch(netloc.rpartition("@")[2]):
        raise ValueError("must have nothing but a port beside its IPv6 address")
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise ValueError("must have a valid IPv6 address between brackets") from error


def _ascii_name(host: str) -> str:
    if host.isascii():
        return host
    # Only international names need the tables of this module (IDNA 2008, RFC 5891).
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError("must have a valid host name") from error
