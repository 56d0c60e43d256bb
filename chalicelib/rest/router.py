"""The router: a table of routes, and the Chalice app that is made from it for one service.

A route that does not say ``public=True`` is closed: it has the authorizer, and its view gets the
caller's tenant. Every error becomes a problem document.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from chalice.app import Blueprint, Chalice, ChaliceAuthorizer, Request, Response
from typing_extensions import Required, TypedDict, Unpack

from chalicelib.domain.errors import CrossSiteRequest, TimersError
from chalicelib.domain.timer import Idempotency
from chalicelib.rest import access, idempotency, reading
from chalicelib.rest.catalogue import Internal
from chalicelib.rest.headers import IDEMPOTENCY_KEY
from chalicelib.rest.problems import problem, replace_chalice_errors
from chalicelib.rest.reading import ApiRequest
from chalicelib.rest.responses import Success
from chalicelib.rest.validation import Body, Limits, Query
from chalicelib.service.ports import Telemetry
from chalicelib.settings import Settings

log = logging.getLogger(__name__)


class RoutedService(Protocol):
    """The part of a service that the router itself uses."""

    @property
    def settings(self) -> Settings:
        """The settings of the service."""

    @property
    def telemetry(self) -> Telemetry:
        """The log and the metrics of each invocation."""


ServiceT = TypeVar("ServiceT", bound=RoutedService)
View = Callable[[ServiceT, ApiRequest[Any]], Response]


class RouteOptions(TypedDict, total=False):
    """The keyword arguments of a route's decorator.

    ``returns`` is the response that succeeds, and ``or_returns`` another one. ``body`` or ``query``
    is the model that reads the request. Without ``query``, no parameter is accepted. ``raises`` are
    the errors that only some routes have. ``public`` routes need no key. Those for ``any_site`` are
    answered under any Host and to any web page. Those with ``test_clock`` exist only where the
    clock can be moved. An ``idempotent`` route accepts an ``Idempotency-Key``. ``tag`` groups the
    routes in the OpenAPI document.
    """

    returns: Required[Success[Any]]
    or_returns: Success[Any]
    body: type[Body]
    query: type[Query]
    raises: tuple[type[TimersError], ...]
    public: bool
    any_site: bool
    test_clock: bool
    idempotent: bool
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[ServiceT]):
    """One method of one path: its view, and what the view reads, returns and raises."""

    method: str
    path: str
    view: View[ServiceT]
    returns: Success[Any]
    or_returns: Success[Any] | None = None
    body: type[Body] | None = None
    query: type[Query] = Query
    raises: tuple[type[TimersError], ...] = ()
    public: bool = False
    any_site: bool = False
    test_clock: bool = False
    idempotent: bool = False
    tag: str = "timers"

    @property
    def key(self) -> str:
        """The method and the path, as ``GET /timers``."""
        return f"{self.method} {self.path}"

    @property
    def name(self) -> str:
        """The name of the view; it is also the operation's id in the OpenAPI document."""
        return self.view.__name__

    @property
    def successes(self) -> list[Success[Any]]:
        """The responses that succeed."""
        return [self.returns] if self.or_returns is None else [self.returns, self.or_returns]

    def read(self, request: Request, limits: Limits) -> Any:
        """Return the body of ``request``, its query if it has no body. Raises ``RequestError``."""
        query = self.query.parse(reading.query_of(request))
        if self.body is None:
            return query
        return self.body.parse(reading.json_body(request, self.body.max_bytes), limits)

    def idempotency(self, request: Request) -> Idempotency | None:
        """Return the idempotency of ``request``, if it has one. Raises ``InvalidRequest``."""
        if not self.idempotent or IDEMPOTENCY_KEY.name.lower() not in request.headers:
            return None
        limit = self.body.max_bytes if self.body else reading.MAX_BODY_BYTES
        return idempotency.read(request.headers, self.key, reading.json_body(request, limit))


class Router(Generic[ServiceT]):
    """The routes of an API, in the order in which they were added."""

    def __init__(self) -> None:
        self.routes: list[Route[ServiceT]] = []

    def get(
        self, path: str, **options: Unpack[RouteOptions]
    ) -> Callable[[View[ServiceT]], View[ServiceT]]:
        """Add a view of ``GET path``."""
        return self._decorator("GET", path, options)

    def post(
        self, path: str, **options: Unpack[RouteOptions]
    ) -> Callable[[View[ServiceT]], View[ServiceT]]:
        """Add a view of ``POST path``."""
        return self._decorator("POST", path, options)

    def put(
        self, path: str, **options: Unpack[RouteOptions]
    ) -> Callable[[View[ServiceT]], View[ServiceT]]:
        """Add a view of ``PUT path``."""
        return self._decorator("PUT", path, options)

    def patch(
        self, path: str, **options: Unpack[RouteOptions]
    ) -> Callable[[View[ServiceT]], View[ServiceT]]:
        """Add a view of ``PATCH path``."""
        return self._decorator("PATCH", path, options)

    def delete(
        self, path: str, **options: Unpack[RouteOptions]
    ) -> Callable[[View[ServiceT]], View[ServiceT]]:
        """Add a view of ``DELETE path``."""
        return self._decorator("DELETE", path, options)

    def routes_of(self, settings: Settings) -> list[Route[ServiceT]]:
        """Return the routes of a service with these settings."""
        return [route for route in self.routes if settings.test_clock or not route.test_clock]

    def names(self, settings: Settings) -> list[str]:
        """Return ``METHOD /path`` of every route of a service with these settings, by path."""
        return names_of(self.routes_of(settings))

    def app(
        self, name: str, service: ServiceT, blueprint: Blueprint, authorizer: ChaliceAuthorizer
    ) -> Chalice:
        """Return the Chalice app ``name``: its routes, and the functions of ``blueprint``.

        ``authorizer`` guards the closed routes where the settings of ``service`` ask for a key.
        """
        app = Chalice(app_name=name, configure_logs=False)
        # Every response is text: Chalice need not compare each with its list of binary types.
        app.api.binary_types = []
        app.register_blueprint(blueprint)
        routes = self.routes_of(service.settings)
        _add_middleware(app, service, {route.key for route in routes if route.any_site})
        guard = authorizer if service.settings.needs_key else None
        for route in routes:
            app.route(
                route.path,
                name=route.name,
                methods=[route.method],
                # Every type, so that a wrong one gets our 415 with a hint instead of Chalice's.
                content_types=["*/*"],
                authorizer=None if route.public else guard,
            )(_handler(route, app, service))
        return app

    def _decorator(
        self, method: str, path: str, options: RouteOptions
    ) -> Callable[[View[ServiceT]], View[ServiceT]]:
        def add(view: View[ServiceT]) -> View[ServiceT]:
            self.routes.append(Route(method=method, path=path, view=view, **options))
            return view

        return add


def names_of(routes: Iterable[Route[Any]]) -> list[str]:
    """Return ``METHOD /path`` of every route, by path."""
    ordered = sorted(routes, key=lambda route: (route.path, route.method))
    return [route.key for route in ordered]


def _add_middleware(app: Chalice, service: RoutedService, any_site: Collection[str]) -> None:
    """Observe every request, replace Chalice's errors, and refuse cross-site requests.

    ``any_site`` has the routes that are for every site.
    """

    def observe(request: Request, get_response: Callable[[Any], Response]) -> Response:
        with service.telemetry.observe(request.lambda_context):
            return get_response(request)

    def same_site_only(request: Request, get_response: Callable[[Any], Response]) -> Response:
        if f"{request.method} {request.path}" not in any_site:
            try:
                access.check_site(request.headers, service.settings)
            except CrossSiteRequest as error:
                return problem(error)
        return get_response(request)

    # The first is the outermost, so refusals are observed too. Chalice looks for the method inside
    # the last one, so a cross-site request is refused before a 405 could name our methods.
    for middleware in (observe, head_as_get, replace_chalice_errors, same_site_only):
        app.register_middleware(middleware, "http")


def head_as_get(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """Respond to HEAD as to GET, without the body (RFC 9110, 9.3.2; a middleware)."""
    if request.method != "HEAD":
        return get_response(request)
    # Chalice looks the view up by the method in the context, which is a part of the event.
    request.method = request.context["httpMethod"] = "GET"
    response = get_response(request)
    return Response("", response.headers, response.status_code)


def _handler(route: Route[ServiceT], app: Chalice, service: ServiceT) -> Callable[..., Response]:
    """Return the function that Chalice calls for ``route``."""
    limits, needs_key = Limits.of(service.settings), service.settings.needs_key

    def handle(**parameters: str) -> Response:
        # Chalice's thread-safe subclass has one current request for each thread.
        request: Any = app.current_request
        try:
            # The tenant is first: a caller without a key gets 401 and learns of no other fault.
            caller = (
                None if route.public else access.tenant_of(request.context, needs_key=needs_key)
            )
            given = route.read(request, limits)
            path, once = reading.path_of(request), route.idempotency(request)
            return route.view(service, ApiRequest(caller, path, parameters, given, once))
        except TimersError as error:
            return problem(error)
        except Exception:
            log.exception("%s failed", route.name)
            return problem(Internal())

    if route.body:
        reading.set_max_body_bytes(handle, route.body.max_bytes)
    return handle
