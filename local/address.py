"""The address of the offline server, as clients on this machine use it."""

from __future__ import annotations

import socket

from chalicelib.settings import Settings


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of sockets that listen on ``host``: a name or an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def reachable(host: str) -> str:
    """Return an address at which a server that listens on ``host`` can be called."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound to


def url(settings: Settings) -> str:
    """Return the URL of the server, without a slash at its end."""
    host = reachable(settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
