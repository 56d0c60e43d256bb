"""Access to the API: the tenant of a request, and the checks of Host and Origin on one machine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from chalice.app import Request, Response

from chalicelib.domain import errors
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.rest.problems import problem
from chalicelib.settings import Settings, is_loopback


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


def same_site_only(
    request: Request, get_response: Callable[[Any], Response], settings: Settings
) -> Response:
    """Refuse cross-site requests where no key is needed (a middleware).

    Where a key is needed, every site may call, because a foreign page has no key.
    """
    if not (settings.in_lambda or settings.needs_key):
        try:
            check_site(request.headers, settings.allowed_hosts)
        except errors.CrossSiteRequest as error:
            return problem(error)
    return get_response(request)


def check_site(headers: Mapping[str, str], allowed_hosts: frozenset[str]) -> None:
    """Raise ``CrossSiteRequest`` unless Host and Origin are this machine's or allowed.

    On loopback, an attacker can call through the browser of this machine's user. A page of another
    site may post here, which Origin shows. Or its name may resolve to 127.0.0.1 (DNS rebinding),
    which Host shows.
    """
    host = headers.get("host", "")
    if not _is_local(_hostname("//" + host), allowed_hosts):
        raise errors.CrossSiteRequest(
            f"Host {errors.excerpt(host)!r} is not this machine's; "
            "TIMERS_ALLOWED_HOSTS names others."
        )
    # Only browsers send Origin. "null", from a sandboxed page, has no host name and is refused.
    origin = headers.get("origin")
    if origin is not None and not _is_local(_hostname(origin), allowed_hosts):
        raise errors.CrossSiteRequest(
            f"Requests of pages from {errors.excerpt(origin)!r} are refused."
        )


# Clients send the same few names with every request.
@functools.lru_cache(maxsize=256)
def _hostname(url: str) -> str:
    """Return the host name in ``url``, empty if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@functools.lru_cache(maxsize=256)
def _is_local(name: str, allowed_hosts: frozenset[str]) -> bool:
    return name in allowed_hosts or is_loopback(name)
