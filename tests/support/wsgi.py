"""The offline gateway, called without a server. Requests are described as in WSGI (PEP 3333)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from local.gateway import Gateway
from local.http_message import HttpRequest

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True)
class GatewayResponse:
    """The response of the gateway."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> str:
        return _status_line(self.code)

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def send_request(gateway: Gateway, method: str, path: str, **environment: Any) -> GatewayResponse:
    """Send a request whose WSGI environment has the values of ``environment`` too."""
    environ = {"HTTP_HOST": "127.0.0.1"} | environment
    response = gateway.respond(request_of(environ | {"REQUEST_METHOD": method, "PATH_INFO": path}))
    return GatewayResponse(response.status, response.headers, response.body)


def respond(gateway: Gateway, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Respond to one request as a WSGI application."""
    response = gateway.respond(request_of(environ))
    start_response(_status_line(response.status), list(response.headers.items()))
    return [response.body]


def request_of(environ: Environ) -> HttpRequest:
    """Return the request that a WSGI environment describes. A body that nobody reads is left."""
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name == "CONTENT_TYPE" and value)
    }
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return HttpRequest(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"],
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        client=environ.get("REMOTE_ADDR", ""),
        body=environ["wsgi.input"].read(length) if length else b"",
    )


def with_body(body: bytes) -> Environ:
    """Return the part of the environment that gives a request a body."""
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
