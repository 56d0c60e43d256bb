"""Who may call: the checks of Host and Origin on one machine, and the tenant of a request."""

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

    Where a key is needed, raises ``Unauthorized`` if no authorizer named a tenant, whatever the
    gateway let through, and ``Unavailable`` if the authorizer could not look the key up. A tenant
    that an authorizer names is never replaced by another.
    """
    found = context.get("authorizer") or {}
    if isinstance(found.get("tenant"), str) and found["tenant"]:
        return str(found["tenant"])
    if found.get("refused") == errors.Unavailable.code:
        raise errors.Unavailable("Keys cannot be looked up now.")
    if needs_key:
        raise errors.Unauthorized
    return DEFAULT_TENANT


def same_site_only(
    request: Request, get_response: Callable[[Any], Response], settings: Settings
) -> Response:
    """Refuse cross-site requests on this machine, where no key is needed (a middleware).

    Where a key is needed every site may call: no web page has a key.
    """
    if not (settings.in_lambda or settings.needs_key):
        try:
            check_site(request.headers, settings.allowed_hosts)
        except errors.CrossSiteRequest as error:
            return problem(error)
    return get_response(request)


def check_site(headers: Mapping[str, str], allowed_hosts: frozenset[str]) -> None:
    """Raise ``CrossSiteRequest`` unless Host and Origin are this machine's or allowed.

    On loopback the browser is the way in for an attacker: a page of another site may post here
    (Origin), or have its own name resolve to 127.0.0.1 (Host).
    """
    host = headers.get("host", "")
    if not _is_local(_hostname("//" + host), allowed_hosts):
        raise errors.CrossSiteRequest(
            f"Host {host[:100]!r} is not this machine's; TIMERS_ALLOWED_HOSTS names others."
        )
    origin = headers.get("origin")
    if origin is not None and not _is_local(_hostname(origin), allowed_hosts):
        raise errors.CrossSiteRequest(f"Requests of pages from {origin[:100]!r} are refused.")


@functools.lru_cache(maxsize=256)
def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@functools.lru_cache(maxsize=256)
def _is_local(name: str, allowed_hosts: frozenset[str]) -> bool:
    return name in allowed_hosts or is_loopback(name)
