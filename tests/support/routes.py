"""An app made of the routes of a test, and requests to it as API Gateway sends them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from chalice.app import AuthRequest, AuthResponse, Blueprint, Chalice

from chalicelib.rest.router import Router
from chalicelib.service.ports import NoTelemetry, Telemetry
from chalicelib.settings import Settings, load


class FakeService(NoTelemetry):
    """The part of a service that a router needs. Its settings are ``environment`` alone."""

    def __init__(self, **environment: str) -> None:
        self.settings: Settings = load(environment)
        self.observed: list[Any] = []

    @property
    def telemetry(self) -> Telemetry:
        return self

    def observe(self, context: Any) -> AbstractContextManager[None]:
        self.observed.append(context)
        return super().observe(context)


def app_of(api: Router[FakeService], service: FakeService | None = None) -> Chalice:
    """Return the app of ``api``, with an authorizer that refuses every request."""
    blueprint = Blueprint("tests")

    @blueprint.authorizer(name="authorizer")
    def authorizer(_request: AuthRequest) -> AuthResponse:
        return AuthResponse([], "nobody")

    return api.app("small", service or FakeService(), blueprint, authorizer)


def call(
    app: Chalice,
    method: str,
    route: str,
    *,
    headers: dict[str, str] | None = None,
    tenant: str | None = None,
    body: bytes = b"",
    **parameters: str,
) -> dict[str, Any]:
    """Call ``app`` as API Gateway does, after an authorizer that found ``tenant``."""
    context: dict[str, Any] = {
        "httpMethod": method,
        "resourcePath": route,
        "path": route.format(**parameters),
    }
    if tenant:
        context["authorizer"] = {"tenant": tenant}
    event = {
        "requestContext": context,
        "headers": {"host": "localhost"} | (headers or {}),
        "multiValueQueryStringParameters": None,
        "pathParameters": parameters,
        "stageVariables": None,
        "body": body,
        "isBase64Encoded": False,
    }
    response: dict[str, Any] = app(event, None)
    return response
