"""A WSGI application that passes requests to the Chalice app as API Gateway does.

Chalice has a local gateway too, but it matches routes slowly and responds to an unknown path with
403.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from chalice.app import Chalice
from chalice.local import LocalChalice

from chalicelib.domain.errors import MalformedBody, RouteNotFound, TimersError, excerpt
from chalicelib.rest.problems import problem
from chalicelib.rest.reading import MAX_BODY_BYTES, max_body_bytes, too_large
from local.authorizers import Authorizers

METHODS_WITH_A_BODY = ("POST", "PUT", "PATCH")

Environ = dict[str, Any]
WSGIHeaders = list[tuple[str, str]]
StartResponse = Callable[[str, WSGIHeaders], object]

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Gateway:
    """Turns WSGI requests into Lambda proxy events, and the app's results into responses."""

    def __init__(self, app: Chalice, clock: Callable[[], float] = time.monotonic) -> None:
        _make_thread_safe(app)
        self._app = app
        self._authorizers = Authorizers(app, clock) or None
        self._fixed_paths = {path for path in app.routes if "{" not in path}
        self._patterns = [(route.split("/"), route) for route in sorted(app.routes) if "{" in route]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to one request (PEP 3333)."""
        # HEAD is GET whose response is sent without its body (RFC 9110, 9.3.2).
        head = environ["REQUEST_METHOD"] == "HEAD"
        response = self._respond(environ | {"REQUEST_METHOD": "GET"} if head else environ)
        body = response["body"].encode()
        headers = list(response["headers"].items())
        # A 204 must not have this header (RFC 9110, 8.6).
        if response["statusCode"] != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", str(len(body))))
        start_response(_STATUS_LINES[response["statusCode"]], headers)
        return [] if head else [body]

    def route_of(self, environ: Environ) -> str | None:
        """Return the route of a request, None if its path has none."""
        return self._match(_path(environ))[0]

    def reads_body(self, environ: Environ) -> bool:
        """Tell whether the body of a request is read, if its caller is admitted."""
        route, length = self.route_of(environ), environ.get("CONTENT_LENGTH")
        if route is None or not self._takes_body(environ, route):
            return False
        return _has_body(environ) and not (length and int(length) > self.max_body_bytes(environ))

    def max_body_bytes(self, environ: Environ) -> int:
        """Return how long the body of a request may be."""
        view = self._app.routes.get(self.route_of(environ) or "", {}).get(environ["REQUEST_METHOD"])
        return MAX_BODY_BYTES if view is None else max_body_bytes(view.view_function)

    def admits(self, environ: Environ) -> bool:
        """Tell whether the caller of a request may call its route."""
        route = self.route_of(environ)
        try:
            self._context(environ, route or "")
        except TimersError:
            return False
        return True

    def _respond(self, environ: Environ) -> dict[str, Any]:
        path = _path(environ)
        route, parameters = self._match(path)
        if route is None:
            missing = RouteNotFound(f"There is no {excerpt(path)}; GET / names the routes.")
            return problem(missing).to_dict()
        try:
            caller = self._context(environ, route)
            # After the authorizer: a caller without a key must not make the server read a body.
            body = self._body(environ, route)
        except TimersError as error:
            return problem(error).to_dict()
        event = _event(environ, path, route, parameters, body)
        if caller is not None:
            event["requestContext"]["authorizer"] = caller
        return self._app(event, None)

    def _context(self, environ: Environ, route: str) -> dict[str, Any] | None:
        """Return the context that the authorizer gives the caller. Raises its refusal."""
        return self._authorizers and self._authorizers.context(
            route, environ["REQUEST_METHOD"], environ.get("HTTP_AUTHORIZATION")
        )

    def _takes_body(self, environ: Environ, route: str) -> bool:
        method = environ["REQUEST_METHOD"]
        return method in METHODS_WITH_A_BODY and method in self._app.routes[route]

    def _body(self, environ: Environ, route: str) -> bytes:
        """Return the body, which is empty where none is read.

        Raises ``BodyTooLarge``, and ``MalformedBody`` when the client closed the connection early.
        """
        length, limit = environ.get("CONTENT_LENGTH"), self.max_body_bytes(environ)
        if length and int(length) > limit:
            raise too_large(limit)
        # The server would wait for the body to come, so it reads none that nobody wants.
        if not self._takes_body(environ, route):
            return b""
        return _read_body(environ, length, limit)

    def _match(self, path: str) -> tuple[str | None, dict[str, str]]:
        """Return the route of ``path`` and the values of its parameters; None if there is none."""
        if path in self._fixed_paths:
            return path, {}
        parts = path.split("/")
        for pattern, route in self._patterns:
            if len(pattern) != len(parts):
                continue
            pairs = list(zip(pattern, parts, strict=True))
            if all(name == part or name.startswith("{") for name, part in pairs):
                return route, {name[1:-1]: part for name, part in pairs if name.startswith("{")}
        return None, {}


def _make_thread_safe(app: Chalice) -> None:
    """Keep a current request for each thread, with the class that Chalice's own server uses."""
    app.__class__ = type("ThreadSafeApp", (LocalChalice, app.__class__), {})


def _path(environ: Environ) -> str:
    # API Gateway ignores a slash at the end too.
    path: str = environ["PATH_INFO"]
    return path.rstrip("/") or "/"


def _has_body(environ: Environ) -> bool:
    length = environ.get("CONTENT_LENGTH")
    return length not in ("0", "", None) or environ.get("HTTP_TRANSFER_ENCODING") is not None


def _read_body(environ: Environ, length: str | None, limit: int) -> bytes:
    if not _has_body(environ):
        return b""
    # One byte more tells whether a chunked body, which has no length, is too long.
    body: bytes = environ["wsgi.input"].read(limit + 1)
    if len(body) > limit:
        raise too_large(limit)
    if length and len(body) < int(length):
        raise MalformedBody("The body is shorter than its Content-Length.")
    return body


def _event(
    environ: Environ, path: str, route: str, parameters: dict[str, str], body: bytes
) -> dict[str, Any]:
    """Return the event that API Gateway's Lambda proxy integration would send."""
    query = environ.get("QUERY_STRING")
    return {
        "requestContext": {
            "httpMethod": environ["REQUEST_METHOD"],
            "resourcePath": route,
            "path": path,
            "identity": {"sourceIp": environ.get("REMOTE_ADDR", "")},
        },
        "headers": _headers(environ),
        "multiValueQueryStringParameters": (
            parse_qs(query, keep_blank_values=True) if query else None
        ),
        "pathParameters": parameters,
        "stageVariables": None,  # Chalice requires the key
        # API Gateway sends text. Chalice takes bytes too, and then need not encode them again.
        "body": body,
        "isBase64Encoded": False,
    }


def _headers(environ: Environ) -> dict[str, str]:
    # WSGI has headers as HTTP_…, but Content-Type without that prefix (PEP 3333).
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name[:5] == "HTTP_"
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    return headers
