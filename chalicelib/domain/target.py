"""Webhook targets: which URLs are accepted, and the call that is made for a timer.

The URL of a call is canonical ASCII and is built here from checked parts. So no sender parses the
client's text a second time, perhaps with another result.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from chalicelib.domain.content import NO_CONTENT, Content
from chalicelib.domain.moment import rfc3339
from chalicelib.domain.signing import signature
from chalicelib.domain.timer import Timer
from chalicelib.domain.webhook import Call

MAX_URL_BYTES = 2048
"""Limits both the client's text in UTF-8 and the canonical URL, in which one letter may take 12."""

MAX_URL_CHARACTERS = MAX_URL_BYTES
"""The same limit where only characters can be counted. No text has fewer bytes than characters."""

USER_AGENT = "webhook-timers/1"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_MAX_HOST_CHARACTERS = 253  # RFC 1035: 255 bytes in a DNS message, with its length bytes
_MAX_LABEL_CHARACTERS = 63  # RFC 1035
# The underscore is not allowed in host names (RFC 1123), but many internal names have one.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?", re.ASCII)
_JOINERS = {"\u200c", "\u200d"}
"""Invisible characters. Only IDNA 2008 knows where they make sense."""

_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]*|[0-9]+", re.ASCII)
_BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]*)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# With ``%``: an escape stays as the client wrote it, because ``%2f`` and ``/`` may differ to the
# receiver.
_KEPT_IN_PATH = "!$%&'()*+,/:;=@~[]"
_KEPT_IN_QUERY = _KEPT_IN_PATH + "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The parts of a URL in canonical form. ``host`` has no brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    credentials: tuple[bytes, bytes] | None

    def url(self, timer_id: int | None) -> str:
        """Return the URL to call: the path with the id appended if there is one, then the query."""
        if timer_id is None:
            return self._url(self.path)
        slash = "" if self.path.endswith("/") else "/"
        return self._url(f"{self.path}{slash}{timer_id}")

    def byte_count(self) -> int:
        """Return the length of the canonical URL, which is ASCII, without a timer's id."""
        return len(self._url(self.path))

    def _url(self, path: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{host}{port}{path}{query}"


def parse_target(url: str) -> Target:
    """Return the parts of an absolute http or https URL (RFC 3986) that a client sends.

    Characters that a URL must not have become escapes of UTF-8. Escapes stay as they are. The
    fragment is dropped. Raises ``ValueError`` with a message that continues "the URL …".
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"must have at most {MAX_URL_CHARACTERS} characters")
    target = _parse(url)
    # The text is stored and the canonical form is sent. Either may be the longer one: a fragment is
    # only stored.
    if max(len(url.encode()), target.byte_count()) > MAX_URL_BYTES:
        raise ValueError(
            f"must have at most {MAX_URL_BYTES} bytes, also where other characters become escapes"
        )
    return target


@functools.lru_cache(maxsize=1024)
def _parse(url: str) -> Target:
    # ``urlsplit`` would silently remove tabs and newlines, and blanks before the URL.
    if _CONTROL.search(url):
        raise ValueError("must not contain control characters")
    if url != url.strip():
        raise ValueError("must not have a blank around it")
    # The messages of ``urlsplit`` repeat parts of the URL, which may be a password.
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError("must have a valid host name") from error
    try:
        port = parts.port  # parsed only now: raises if it is no number, or too large
    except ValueError as error:
        raise ValueError(f"must have a port between 1 and {_MAX_PORT}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("must be an absolute http or https URL")
    # Browsers end the host at a backslash, ``urlsplit`` does not. So ``http://a\@b`` would be two
    # hosts, and a check could see one and a call go to the other.
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


def receiver_of(url: str) -> str:
    """Return the receiver that ``url`` leads to, as ``host:port``: what limits of calls count by.

    Empty for a URL that cannot be called.
    """
    try:
        target = _parse(url)
    except ValueError:
        return ""
    return f"{target.host}:{target.port}"


def prepare(
    timer: Timer,
    store_id: str,
    now: int,
    keys: Sequence[bytes] = (),
    *,
    notice_url: str | None = None,
    attempts_max: int = 1,
    ahead_ms: float = 0.0,
) -> Call:
    """Return the call for an attempt at ``timer`` that starts at ``now`` (epoch ms).

    With a ``notice_url`` it is the failure notice to that URL. The headers are those of Standard
    Webhooks 1.0: every signing key in ``keys`` signs, and ``webhook-timestamp`` is the time of
    this attempt, in seconds. ``timer-…`` headers tell about the timer, among them ``attempts_max``,
    how many attempts it has. The signature covers the body. ``ahead_ms`` is how far the service's
    clock is ahead of the real time, which ``webhook-timestamp`` has.

    Raises ``ValueError``, as ``parse_target`` does, when the URL cannot be called.
    """
    # Any length: older versions accepted URLs that are longer in canonical form.
    target = _parse(timer.url if notice_url is None else notice_url)
    # Receivers drop duplicates by this id. So it is the same on every attempt at a timer, and no
    # other store or tenant has it.
    webhook_id = f"{store_id}.{timer.tenant}.{timer.id}"
    if timer.repeats:
        webhook_id += f".{timer.repeats}"
    if notice_url is not None:
        # A replayed timer may fail several times, each time with a notice of its own.
        webhook_id += f".failed.{timer.version}"
    # The notice of a failure is ours: it has nothing of the client's content.
    content = timer.content if notice_url is None else NO_CONTENT
    timestamp = math.floor(now - ahead_ms) // 1000
    headers = _standard_headers(webhook_id, timestamp, keys, content.body)
    headers |= _timer_headers(timer, now, attempts_max)
    if target.credentials:
        user, password = target.credentials
        headers["Authorization"] = "Basic " + base64.b64encode(user + b":" + password).decode()
    return Call(
        url=target.url(timer.id if content.append_id else None),
        method=content.method,
        headers=_with_content(headers, content),
        body=content.body,
        timeout_s=timer.options.timeout_s,
        tenant=timer.tenant,
    )


def _standard_headers(
    webhook_id: str, timestamp: int, keys: Sequence[bytes], body: bytes
) -> dict[str, str]:
    """Return the headers of Standard Webhooks. ``timestamp`` is in seconds."""
    headers = {
        "User-Agent": USER_AGENT,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
    }
    if keys:
        headers["webhook-signature"] = signature(keys, webhook_id, timestamp, body)
    return headers


def _timer_headers(timer: Timer, now: int, attempts_max: int) -> dict[str, str]:
    """Return what a call tells about its timer. ``now`` is epoch ms."""
    attempt = timer.attempts + 1
    # A retry is late by its own time, as in the log of attempts.
    planned_at = timer.due_at if timer.next_attempt_at is None else timer.next_attempt_at
    late_ms = max(0, now - planned_at)
    return {
        "timer-id": str(timer.id),
        "timer-attempt": str(attempt),
        "timer-attempts-max": str(attempts_max),
        "timer-last-attempt": "true" if attempt >= attempts_max else "false",
        "timer-due-at": rfc3339(timer.due_at),
        "timer-lateness-ms": str(late_ms),
    }


def _with_content(headers: dict[str, str], content: Content) -> dict[str, str]:
    """Return our headers and the client's. The client's replace ours, which are few."""
    if content == NO_CONTENT:
        return headers
    given = {name.lower() for name, _ in content.headers}
    kept = {name: value for name, value in headers.items() if name.lower() not in given}
    if content.content_type is not None:
        kept["Content-Type"] = content.content_type
    return kept | dict(content.headers)


def _credentials(user: str | None, password: str | None) -> tuple[bytes, bytes] | None:
    """Return user and password without escapes, for the header of HTTP Basic (RFC 7617)."""
    if not user and not password:
        return None
    return unquote_to_bytes(user or ""), unquote_to_bytes(password or "")


def _host(netloc: str, host: str | None) -> str:
    """Return the canonical form of a name, an IPv4 address or an IPv6 address."""
    if not host:
        raise ValueError("must have a host")
    if "[" in netloc:
        return _ipv6(netloc, host)
    name = _ascii_name(host)
    labels = name.removesuffix(".").split(".")
    too_long = len(name) > _MAX_HOST_CHARACTERS or any(
        len(label) > _MAX_LABEL_CHARACTERS for label in labels
    )
    if too_long or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("must have a valid host name")
    return _ipv4(labels) if _NUMBER.fullmatch(labels[-1]) else name


def _ipv4(parts: Sequence[str]) -> str:
    """Return the dotted form of an IPv4 address in any notation: decimal, octal, short, …

    A host that ends in a number is an IPv4 address or invalid (WHATWG URL, host parsing).
    Resolvers read ``127.1`` and ``2130706433`` as addresses too, but not all of them alike. So the
    dotted form goes to the resolver.
    """
    try:
        *first, last = (_number(part) for part in parts)
        # The last number fills all bytes that the others leave: ``127.1`` is 127.0.0.1.
        rest = last.to_bytes(max(4 - len(first), 1), "big")
        return str(ipaddress.IPv4Address(bytes(first) + rest))
    except (ValueError, OverflowError) as error:
        raise ValueError("must have a valid host name or IPv4 address") from error


def _number(part: str) -> int:
    """Return the value of a hexadecimal (``0x``), octal (``0``) or decimal number."""
    if not _NUMBER.fullmatch(part):
        raise ValueError
    if part[:2] in {"0x", "0X"}:
        return int(part[2:] or "0", 16)
    return int(part, 8 if part[0] == "0" else 10)


def _ipv6(netloc: str, host: str) -> str:
    """Return the shortest form of an IPv6 address, without its brackets."""
    # A zone (``%eth0``) names an interface of this machine, which no client can know.
    if "%" in host:
        raise ValueError("must not have a zone in its IPv6 address")
    # Some versions of urlsplit ignore text beside the brackets.
    if not _BRACKETED.fullmatch(netloc.rpartition("@")[2]):
        raise ValueError("must have nothing but a port beside its IPv6 address")
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise ValueError("must have a valid IPv6 address between brackets") from error


def _ascii_name(host: str) -> str:
    """Return an international name in its ASCII form, label by label (UTS 46)."""
    if host.isascii():
        return host
    # Imported late: its tables take long to load, and few names need them.
    import idna

    try:
        # The mapping of some characters contains dots.
        labels = idna.uts46_remap(host, std3_rules=False, transitional=False).split(".")
        return ".".join(label if label.isascii() else _ascii_label(label) for label in labels)
    except idna.IDNAError as error:
        raise ValueError("must have a valid host name") from error


def _ascii_label(label: str) -> str:
    """Return an international label in its ASCII form. Raises ``idna.IDNAError``."""
    import idna

    if len(label) > _MAX_LABEL_CHARACTERS or label.startswith("xn--"):
        raise idna.IDNAError("too long, or an ASCII form with other characters")
    try:
        return idna.alabel(label).decode()  # IDNA 2008 (RFC 5891)
    except idna.IDNAError:
        # IDNA 2008 has no emoji, other symbols or underscores. Browsers call such names all the
        # same, with these checks (WHATWG URL, domain to ASCII).
        if _JOINERS & set(label):
            raise
        idna.check_nfc(label)
        idna.check_initial_combiner(label)
        idna.check_bidi(label)
        return "xn--" + label.encode("punycode").decode()
