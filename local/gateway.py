"""The gateway passes requests to the Chalice app as API Gateway does.

Chalice has a local gateway too, but it matches routes slowly and responds to an unknown path with
403.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from chalice.app import Chalice, Request

from chalicelib.domain.errors import RouteNotFound, TimersError, excerpt
from chalicelib.rest.access import tenant_of
from chalicelib.rest.problems import problem
from chalicelib.rest.reading import MAX_BODY_BYTES, max_body_bytes
from local.authorizers import Authorizers
from local.http_message import HttpRequest, HttpResponse, Match

METHODS_WITH_A_BODY = ("POST", "PUT", "PATCH")

_current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)


class Gateway:
    """Turns HTTP requests into Lambda proxy events, and the app's results into HTTP responses.

    Threads and greenlets may use it at the same time.
    """

    def __init__(self, app: Chalice, clock: Callable[[], float] = time.monotonic) -> None:
        app.__class__ = type("AppByContext", (_AppByContext, app.__class__), {})
        self._app = app
        self._authorizers = Authorizers(app, clock) or None
        self._fixed_paths = {path for path in app.routes if "{" not in path}
        self._patterns = [(route.split("/"), route) for route in sorted(app.routes) if "{" in route]

    def respond(self, request: HttpRequest) -> HttpResponse:
        """Respond to one request. Its body has been read, if ``reads_body``."""
        return _http_response(self._result(request), head=request.method == "HEAD")

    def match(self, request: HttpRequest) -> Match:
        """Return the route of a request."""
        if request.match is None:
            request.match = self._match(_path(request))
        return request.match

    def reads_body(self, request: HttpRequest) -> bool:
        """Tell whether the body of a request is read, if its caller is admitted."""
        route, method = self.match(request).route, request.method
        return (
            route is not None
            and method in METHODS_WITH_A_BODY
            and method in self._app.routes[route]
        )

    def max_body_bytes(self, request: HttpRequest) -> int:
        """Return how long the body of a request may be, even where none is read."""
        view = self._app.routes.get(self.match(request).route or "", {}).get(request.method)
        return MAX_BODY_BYTES if view is None else max_body_bytes(view.view_function)

    def admits(self, request: HttpRequest) -> bool:
        """Tell whether the caller of a request may call its route. This may look a key up."""
        try:
            self._context(request)
        except TimersError:
            return False
        return True

    def tenant_of(self, request: HttpRequest) -> str:
        """Return the tenant of a request. Raises the refusal of its caller."""
        return tenant_of({"authorizer": self._context(request)}, needs_key=False)

    @property
    def has_tenants(self) -> bool:
        """Whether callers need a key, which names their tenant."""
        return self._authorizers is not None

    def knows_caller(self, request: HttpRequest) -> bool:
        """Tell whether ``admits`` can tell without looking a key up."""
        return self._authorizers is None or self._authorizers.is_known(
            self.match(request).route or "", _method(request), request.headers.get("authorization")
        )

    def _result(self, request: HttpRequest) -> dict[str, Any]:
        route, parameters = self.match(request)
        path = _path(request)
        if route is None:
            missing = RouteNotFound(f"There is no {excerpt(path)}; GET / names the routes.")
            return problem(missing).to_dict()
        try:
            caller = self._context(request)
            # After the authorizer: a caller without a key learns of no other fault.
            if request.fault is not None:
                raise request.fault
        except TimersError as error:
            return problem(error).to_dict()
        event = _event(request, path, route, parameters)
        if caller is not None:
            event["requestContext"]["authorizer"] = caller
        result: dict[str, Any] = self._app(event, None)
        return result

    def _context(self, request: HttpRequest) -> dict[str, Any] | None:
        """Return the context that the authorizer gives the caller. Raises its refusal."""
        return self._authorizers and self._authorizers.context(
            self.match(request).route or "", _method(request), request.headers.get("authorization")
        )

    def _match(self, path: str) -> Match:
        if path in self._fixed_paths:
            return Match(path, {})
        parts = path.split("/")
        for pattern, route in self._patterns:
            if len(pattern) != len(parts):
                continue
            pairs = list(zip(pattern, parts, strict=True))
            if all(name == part or name.startswith("{") for name, part in pairs):
                parameters = {name[1:-1]: part for name, part in pairs if name.startswith("{")}
                return Match(route, parameters)
        return Match(None, {})


def response_to(error: TimersError) -> HttpResponse:
    """Return the response to an error: its problem document."""
    return _http_response(problem(error).to_dict(), head=False)


class _AppByContext(Chalice):
    """Keeps a current request for each thread and each greenlet: both have a context."""

    @property
    def current_request(self) -> Request | None:
        return _current_request.get()

    @current_request.setter
    def current_request(self, request: Request | None) -> None:
        _current_request.set(request)


def _method(request: HttpRequest) -> str:
    # HEAD is GET whose response is sent without its body (RFC 9110, 9.3.2).
    return "GET" if request.method == "HEAD" else request.method


def _path(request: HttpRequest) -> str:
    # API Gateway ignores a slash at the end too.
    return request.path.rstrip("/") or "/"


def _event(
    request: HttpRequest, path: str, route: str, parameters: dict[str, str]
) -> dict[str, Any]:
    """Return the event that API Gateway's Lambda proxy integration would send."""
    return {
        "requestContext": {
            "httpMethod": _method(request),
            "resourcePath": route,
            "path": path,
            "identity": {"sourceIp": request.client},
        },
        "headers": request.headers,
        "multiValueQueryStringParameters": (
            parse_qs(request.query, keep_blank_values=True) if request.query else None
        ),
        "pathParameters": parameters,
        "stageVariables": None,  # Chalice requires the key
        # API Gateway sends text. Chalice takes bytes too, and then need not encode them again.
        "body": request.body,
        "isBase64Encoded": False,
    }


def _http_response(result: dict[str, Any], *, head: bool) -> HttpResponse:
    status, headers = result["statusCode"], result["headers"]
    body: bytes = result["body"].encode()
    # A 204 must not have this header (RFC 9110, 8.6).
    if status != HTTPStatus.NO_CONTENT:
        headers["Content-Length"] = str(len(body))
    return HttpResponse(status, headers, b"" if head else body)
