"""Access to the API: the tenant of a request, and the checks of its site on one machine."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.domain import errors
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.settings import Settings, is_loopback

_DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(
    r"([a-z0-9._-]+|\[[0-9a-f]*:[0-9a-f:.]*\])(?::([0-9]{1,5}))?", re.IGNORECASE
)
"""No user, no path, no blank: lenient parsers find the host of ``evil@localhost`` in it."""


def tenant_of(context: Mapping[str, Any], *, needs_key: bool) -> str:
    """Return the tenant that the authorizer found, from the ``requestContext`` of an event.

    Where a key is needed, raises ``Unauthorized`` if no authorizer named a tenant. Raises
    ``Unavailable`` if the authorizer could not look the key up.
    """
    # A tenant that an authorizer names counts even where no key is needed: the default tenant must
    # never stand in for another.
    found = context.get("authorizer") or {}
    if isinstance(found.get("tenant"), str) and found["tenant"]:
        return str(found["tenant"])
    if found.get("refused") == errors.Unavailable.code:
        raise errors.Unavailable("Keys cannot be looked up now.")
    # The gateway should not let such a request through. If it is misconfigured, this still holds.
    if needs_key:
        raise errors.Unauthorized
    return DEFAULT_TENANT


def check_site(headers: Mapping[str, str], settings: Settings) -> None:
    """Raise ``CrossSiteRequest`` for a request of another site, where no key is needed.

    On loopback, an attacker can call through the browser of this machine's user. A page of another
    site may post here, which Origin and Sec-Fetch-Site show. Or its name may resolve to 127.0.0.1
    (DNS rebinding), which Host shows. Where a key is needed, every site may call, because a foreign
    page has no key.
    """
    if settings.in_lambda or settings.needs_key:
        return
    host = _check_host(headers.get("host", ""), settings.allowed_hosts)
    origin = headers.get("origin")  # only browsers send it
    if origin is not None and _check_origin(origin, host, settings.allowed_hosts):
        return
    # Fetch Metadata (W3C): browsers send it also where they leave Origin out. Another port of this
    # machine is another origin of the same site. "none": the user typed the address.
    site = headers.get("sec-fetch-site", "none")
    if site not in {"same-origin", "none"}:
        raise errors.CrossSiteRequest("Requests of pages from other sites are refused.")


def _check_host(text: str, allowed_hosts: frozenset[str]) -> _Authority:
    """Return what the Host header names. Raises ``CrossSiteRequest`` if it is another machine."""
    host = _authority(text)
    if host is None or not (host.name in allowed_hosts or is_loopback(host.name)):
        raise errors.CrossSiteRequest(
            f"Host {errors.excerpt(text)!r} is not this machine's; "
            "TIMERS_ALLOWED_HOSTS names others."
        )
    return host


def _check_origin(text: str, host: _Authority, allowed_hosts: frozenset[str]) -> bool:
    """Return whether the settings allow an origin; False if it is the origin of this server.

    Raises ``CrossSiteRequest`` for every other one.
    """
    # "null", from a sandboxed page, has no scheme and is refused.
    scheme, _, authority = text.partition("://")
    origin = _authority(authority) if scheme in _DEFAULT_PORTS else None
    if origin is not None:
        if origin.name in allowed_hosts:
            return True
        # Another port of this machine may belong to a page that anybody wrote.
        port = _DEFAULT_PORTS[scheme]
        if (origin.name, origin.port or port) == (host.name, host.port or port):
            return False
    raise errors.CrossSiteRequest(
        f"Requests of pages from {errors.excerpt(text)!r} are refused; "
        "TIMERS_ALLOWED_HOSTS names others."
    )


@dataclass(frozen=True, slots=True)
class _Authority:
    """A host name in lower case, without brackets, and a port; None if none is given."""

    name: str
    port: int | None


# Clients send the same few names with every request.
@functools.lru_cache(maxsize=256)
def _authority(text: str) -> _Authority | None:
    """Return the host and the port in ``text``; None if it is anything else (RFC 9110, 7.2)."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    name, port = match.groups()
    return _Authority(name.strip("[]").lower(), int(port) if port else None)
