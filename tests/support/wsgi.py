"""The offline gateway, called without a server."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any
from wsgiref.util import setup_testing_defaults

from local.gateway import Environ, Gateway


@dataclass(frozen=True)
class GatewayResponse:
    """The response that the gateway passed to its WSGI server."""

    status: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.status.split()[0])

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def send_request(gateway: Gateway, method: str, path: str, **environment: Any) -> GatewayResponse:
    """Send a request whose WSGI environment has the values of ``environment`` too."""
    environ: Environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "wsgi.input": io.BytesIO(),
    } | environment
    setup_testing_defaults(environ)
    started: list[tuple[str, list[tuple[str, str]]]] = []
    parts = gateway(environ, lambda status, headers: started.append((status, headers)))
    ((status, headers),) = started
    return GatewayResponse(status, dict(headers), b"".join(parts))


def with_body(body: bytes) -> Environ:
    """Return the part of the environment that gives a request a body."""
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
