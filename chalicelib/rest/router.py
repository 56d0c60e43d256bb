"""The router: a table of routes, and the Chalice app that is made of it for one service.

A route is closed unless it says ``public=True``: it has the authorizer, and its view gets the
caller's tenant. Every route reads every Content-Type, so that a wrong one is refused in our own
words, and every error becomes a problem document.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from chalice.app import Blueprint, Chalice, ChaliceAuthorizer, Request, Response
from typing_extensions import Required, TypedDict, Unpack

from chalicelib.domain.errors import TimersError
from chalicelib.rest import access, reading
from chalicelib.rest.catalogue import Internal
from chalicelib.rest.problems import own_problems, problem
from chalicelib.rest.reading import ApiRequest
from chalicelib.rest.requests import ListTimers
from chalicelib.rest.responses import Success
from chalicelib.rest.validation import Body, Limits
from chalicelib.service.ports import Telemetry
from chalicelib.settings import Settings

log = logging.getLogger(__name__)


class Served(Protocol):
    """What the router itself needs of a service."""

    @property
    def settings(self) -> Settings:
        """How the service is set up."""

    @property
    def telemetry(self) -> Telemetry:
        """Log and count what one invocation does."""


S = TypeVar("S", bound=Served)
View = Callable[[S, ApiRequest[Any]], Response]


class About(TypedDict, total=False):
    """What a route says of itself.

    ``body`` or ``query`` reads what the client sends; ``raises`` are the errors that only some
    routes have; ``tag`` groups the routes in the OpenAPI document.
    """

    returns: Required[Success[Any]]
    body: type[Body]
    query: type[ListTimers]
    raises: tuple[type[TimersError], ...]
    public: bool
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[S]):
    """One method of one path: its view, and what the view reads, returns and raises."""

    method: str
    path: str
    view: View[S]
    returns: Success[Any]
    body: type[Body] | None = None
    query: type[ListTimers] | None = None
    raises: tuple[type[TimersError], ...] = ()
    public: bool = False
    tag: str = "timers"

    @property
    def name(self) -> str:
        """The name of the view, which is the operation's id."""
        return self.view.__name__

    def read(self, request: Request, limits: Limits) -> Any:
        """Return the body or the query of ``request``. Raises ``RequestError``."""
        if self.body:
            return self.body.parse(reading.json_body(request), limits)
        if self.query:
            return self.query.parse(reading.query_of(request))
        return None


class Router(Generic[S]):
    """The routes of an API, in the order in which they were added."""

    def __init__(self) -> None:
        self.routes: list[Route[S]] = []

    def get(self, path: str, **about: Unpack[About]) -> Callable[[View[S]], View[S]]:
        """Add a view of ``GET path``."""
        return self._adding("GET", path, about)

    def post(self, path: str, **about: Unpack[About]) -> Callable[[View[S]], View[S]]:
        """Add a view of ``POST path``."""
        return self._adding("POST", path, about)

    def patch(self, path: str, **about: Unpack[About]) -> Callable[[View[S]], View[S]]:
        """Add a view of ``PATCH path``."""
        return self._adding("PATCH", path, about)

    def delete(self, path: str, **about: Unpack[About]) -> Callable[[View[S]], View[S]]:
        """Add a view of ``DELETE path``."""
        return self._adding("DELETE", path, about)

    def names(self) -> list[str]:
        """Return ``METHOD /path`` of every route, by path."""
        return names_of(self.routes)

    def app(
        self, name: str, service: S, blueprint: Blueprint, authorizer: ChaliceAuthorizer
    ) -> Chalice:
        """Return the Chalice app ``name``: every route, and the functions of ``blueprint``.

        ``authorizer`` guards the closed routes where the settings of ``service`` ask for a key.
        """
        app = Chalice(app_name=name, configure_logs=False)
        app.api.binary_types = []
        app.register_blueprint(blueprint)
        _add_middleware(app, service)
        guard = authorizer if service.settings.needs_key else None
        for route in self.routes:
            app.route(
                route.path,
                name=route.name,
                methods=[route.method],
                content_types=["*/*"],
                authorizer=None if route.public else guard,
            )(_serving(route, app, service))
        return app

    def _adding(self, method: str, path: str, about: About) -> Callable[[View[S]], View[S]]:
        def add(view: View[S]) -> View[S]:
            self.routes.append(Route(method=method, path=path, view=view, **about))
            return view

        return add


def names_of(routes: Iterable[Route[Any]]) -> list[str]:
    """Return ``METHOD /path`` of every route, by path."""
    ordered = sorted(routes, key=lambda route: (route.path, route.method))
    return [f"{route.method} {route.path}" for route in ordered]


def _add_middleware(app: Chalice, service: Served) -> None:
    """Observe every request, give errors of Chalice our shape, and refuse cross-site requests."""

    def observe(request: Request, get_response: Callable[[Any], Response]) -> Response:
        with service.telemetry.observe(request.lambda_context):
            return get_response(request)

    def same_site_only(request: Request, get_response: Callable[[Any], Response]) -> Response:
        return access.same_site_only(request, get_response, service.settings)

    # The first is the outermost: refusals are observed too, and a cross-site request learns
    # nothing of our methods, since Chalice would answer 405 only behind the last.
    for middleware in (observe, own_problems, same_site_only):
        app.register_middleware(middleware, "http")


def _serving(route: Route[S], app: Chalice, service: S) -> Callable[..., Response]:
    """Return the function that Chalice calls for ``route``."""
    limits, needs_key = Limits.of(service.settings), service.settings.needs_key

    def serve(**parameters: str) -> Response:
        # Chalice's thread-safe subclass has one current request per thread.
        request: Any = app.current_request
        try:
            # The tenant comes first: a caller without a key learns nothing else.
            caller = (
                None if route.public else access.tenant_of(request.context, needs_key=needs_key)
            )
            given = route.read(request, limits)
            return route.view(
                service, ApiRequest(caller, reading.path_of(request), parameters, given)
            )
        except TimersError as error:
            return problem(error)
        except Exception:
            log.exception("%s failed", route.name)
            return problem(Internal())

    return serve
