"""The OpenAPI document, written from the route table, the models and the catalogue of errors.

Pure: routes in, a document out. ``python -m local.documents`` writes it to docs/openapi.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalicelib.domain import errors
from chalicelib.domain.errors import CrossSiteRequest, InvalidRequest, TimersError
from chalicelib.domain.keyed import KEY_PATTERN
from chalicelib.rest import callbacks
from chalicelib.rest.catalogue import CATALOGUE, Entry, Internal, Throttled
from chalicelib.rest.fields import Id, StatusName
from chalicelib.rest.headers import IDEMPOTENCY_KEY, Header
from chalicelib.rest.models import InvalidRequestProblem, Problem
from chalicelib.rest.problems import PROBLEM_JSON, URN, document_of
from chalicelib.rest.responses import INDEX, Success
from chalicelib.rest.router import Route, names_of
from chalicelib.rest.schemas import PREFIX, Schemas, prose, schema_of
from chalicelib.rest.validation import Query

Json = dict[str, Any]
ErrorTypes = tuple[type[TimersError], ...]

JSON = "application/json"
NO_BODY = type(None)

DESCRIPTION = """\
Call this URL at that time, whatever happens in between.

`docs/api.md` says the same in words. Where a limit depends on a setting, this document gives its
default and names the setting.

**Requests.** A `Content-Type` that is missing is read as `application/json`. A body where none is
expected is ignored. A query parameter that is not listed here, or is given twice, is 422, as is a
field of a body. Bodies are UTF-8. A slash at the end of a path changes nothing.

**Errors** are `application/problem+json` (RFC 9457). A refused request changes nothing and never
fires. Beside what each operation lists, an unknown path is 404 `route-not-found`, and a method that
the path does not have, OPTIONS included, is 405 `method-not-allowed` with `Allow`. HEAD is GET
without the body; a packaged stage on AWS answers it on the routes that need no key. The
server in front refuses invalid HTTP, and paths or headers that are too long: offline with 400, 414
or 431 and no document, on AWS with a 4xx `bad-request` whose document may lack `status`.

**Authentication.** On AWS every route under `/timers` needs an API key. Offline that is so with
`TIMERS_AUTH=keys`; otherwise no key is needed, and one that is sent is ignored."""

INFO: Json = {
    "title": "Webhook Timers",
    "version": "1.0.0",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "description": DESCRIPTION,
}

KEY: Json = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "wt_ and 43 characters of base64url",
    "description": "An API key. `make key TENANT=acme` makes one; it sees only that tenant's "
    "timers.",
}

TIMER_ID: Json = {
    "name": "timer_id",
    "in": "path",
    "required": True,
    "description": "The `id` in the response to `POST /timers`. A text that is not an id is 404.",
    "schema": {"$ref": PREFIX + "Id"},
    "example": 1,
}

TIMER_KEY: Json = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "A name of the client's own. At most one pending timer of a tenant has it.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
    "example": "order:17",
}

PATH_PARAMETERS = {"timer_id": TIMER_ID, "key": TIMER_KEY}

TAGS = {
    "many": "Many timers in one request.",
    "timers": "Set timers and watch them",
    "failures": "The attempts of a timer, and replaying timers that failed",
    "service": "The service itself",
}

ANY_ROUTE: ErrorTypes = (
    errors.MalformedBody,
    CrossSiteRequest,
    errors.BodyTooLarge,
    InvalidRequest,
    Throttled,
    Internal,
    errors.Unavailable,
    errors.StartupError,
    errors.InvalidSettings,
    errors.DataFolderError,
    errors.StoreFileError,
)
"""The errors that every route may respond with, ``CrossSiteRequest`` if it is not for any site."""

NO_ROUTE: ErrorTypes = (errors.RouteNotFound, errors.MethodNotAllowed)
"""The errors of a path or a method that the API does not have."""


def document(routes: Sequence[Route[Any]]) -> Json:
    """Return the OpenAPI 3.1 document of an API."""
    return _DocumentWriter(routes).document()


def errors_of(route: Route[Any]) -> ErrorTypes:
    """Return every error that ``route`` may respond with; its own errors come first."""
    kinds: list[type[TimersError]] = list(route.raises)
    if not route.public:
        kinds.append(errors.Unauthorized)
    if _has_id(route):
        kinds += [errors.TimerNotFound, errors.RouteNotFound]
    if "{key}" in route.path:
        kinds.append(errors.RouteNotFound)
    if route.idempotent:
        kinds.append(errors.IdempotencyKeyReused)
    if route.body:
        kinds += [errors.UnsupportedMediaType, errors.RequestTimeout]
    kinds += [kind for kind in ANY_ROUTE if not (route.any_site and kind is CrossSiteRequest)]
    return tuple(kinds)


class _DocumentWriter:
    """Writes the document of ``routes``, and collects the responses that they share."""

    def __init__(self, routes: Sequence[Route[Any]]) -> None:
        self._routes = routes
        bodies = [route.body for route in routes if route.body]
        replies = [
            each.body for route in routes for each in route.successes if each.body is not NO_BODY
        ]
        self._schemas = Schemas([*bodies, *replies, Problem, InvalidRequestProblem, Id, StatusName])
        self._responses: Json = {}

    def document(self) -> Json:
        paths: Json = {}
        for route in sorted(self._routes, key=lambda route: route.path):
            named = [name for name in PATH_PARAMETERS if f"{{{name}}}" in route.path]
            shared = {"parameters": [_ref("parameters", name) for name in named]} if named else {}
            paths.setdefault(route.path, shared)[route.method.lower()] = self._operation(route)
        # No operation has these errors, but clients get them, so the document has them too.
        for kind in NO_ROUTE:
            self._refusal([kind])
        return {
            "openapi": "3.1.0",
            "info": INFO,
            "servers": [{"url": "http://localhost:8000", "description": "make run"}],
            "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
            "paths": paths,
            "components": {
                "securitySchemes": {"key": KEY},
                "parameters": {**PATH_PARAMETERS, **callbacks.PARAMETERS},
                "schemas": self._schemas.named,
                "responses": dict(sorted(self._responses.items())),
            },
        }

    def _operation(self, route: Route[Any]) -> Json:
        summary, description = _summary(route.view.__doc__ or "")
        operation: Json = {
            "operationId": route.name,
            "tags": [route.tag],
            "summary": summary,
            "description": description,
            "security": [] if route.public else [{"key": []}],
            "parameters": [*_parameters(route.query), *_request_headers(route)],
        }
        if route.body:
            content = {"schema": self._schemas.of(route.body), "examples": route.body.examples}
            operation["requestBody"] = {"required": True, "content": {JSON: content}}
        operation["responses"] = {
            **{str(each.status): self._success(each) for each in route.successes},
            **{str(status): self._refusal(kinds) for status, kinds in _by_status(route)},
        }
        operation["callbacks"] = callbacks.CALLBACKS if route.returns.creates else {}
        return _without_empty(operation)

    def _success(self, success: Success[Any]) -> Json:
        response: Json = {
            "description": success.description,
            "headers": {header.name: _header(header) for header in success.headers},
        }
        if success.body is not NO_BODY:
            schema = self._schemas.of(success.body)
            if success.max_items:
                schema = {**schema, "maxItems": success.max_items}
            # The only body that depends on the routes themselves.
            example = {"routes": names_of(self._routes)} if success is INDEX else success.example
            response["content"] = {JSON: {"schema": schema, "example": example}}
        if success.creates:
            parameters = {"timer_id": "$response.body#/id"}
            response["links"] = {
                route.name: {"operationId": route.name, "parameters": parameters}
                for route in self._routes
                if _has_id(route)
            }
        return _without_empty(response)

    def _refusal(self, kinds: Sequence[type[TimersError]]) -> Json:
        """Return a reference to the response to ``kinds``, named after the first of them.

        Raises ``ValueError`` if the response to other errors has that name.
        """
        name = "".join(word.capitalize() for word in kinds[0].code.split("-"))
        response = _problems([CATALOGUE[kind] for kind in kinds])
        if self._responses.setdefault(name, response) != response:
            raise ValueError(f"two responses of different errors would be named {name}")
        return _ref("responses", name)


def _summary(docstring: str) -> tuple[str, str]:
    """Return the first sentence of a docstring, without its full stop, and the rest."""
    text = prose(docstring)
    end = re.search(r"\.\s+|\.$", text)
    return (text[: end.start()], text[end.end() :]) if end else (text, "")


def _by_status(route: Route[Any]) -> list[tuple[int, list[type[TimersError]]]]:
    """Return the errors of a route by their status; its own errors come first."""
    found: dict[int, list[type[TimersError]]] = {}
    for kind in errors_of(route):
        found.setdefault(CATALOGUE[kind].status, []).append(kind)
    return sorted(found.items())


def _problems(entries: Sequence[Entry]) -> Json:
    """Return the one response to several errors, which have the same status."""
    examples = {entry.code: document_of(entry.example, entry.status) for entry in entries}
    with_faults = [entry for entry in entries if isinstance(entry.example, InvalidRequest)]
    plain = [entry for entry in entries if entry not in with_faults]
    schemas = [
        _narrowed(name, group)
        for name, group in (("Faults", with_faults), ("Problem", plain))
        if group
    ]
    headers = [entry.header for entry in entries if entry.header]
    # A header is required only if every error of this status has it.
    on_all = len(headers) == len(entries)
    lines = [f"- `{entry.code}`: {entry.when}" for entry in entries]
    response: Json = {
        "description": "\n".join(lines) if len(entries) > 1 else entries[0].when,
        "headers": {header.name: _header(header, required=on_all) for header in headers},
        "content": {
            PROBLEM_JSON: {
                "schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas},
                **_examples(examples),
            }
        },
    }
    return _without_empty(response)


def _narrowed(name: str, entries: Sequence[Entry]) -> Json:
    """Return the schema of the problem documents of some errors, which have one status."""
    urns = [URN + entry.code for entry in entries]
    return {
        # In OpenAPI 3.1 a reference may have siblings: they narrow the schema that it refers to.
        **_ref("schemas", name),
        "properties": {
            "status": {"const": entries[0].status},
            "type": {"const": urns[0]} if len(urns) == 1 else {"enum": urns},
        },
    }


# OpenAPI has one keyword for a single example, and another for several with names.
def _examples(examples: Mapping[str, Any]) -> Json:
    if len(examples) == 1:
        return {"example": next(iter(examples.values()))}
    return {"examples": {name: {"value": value} for name, value in examples.items()}}


def _header(header: Header, *, required: bool = True) -> Json:
    return {
        "description": header.description,
        "required": required and header.required,
        "schema": header.schema,
    }


def _parameters(query: type[Query]) -> Iterator[Json]:
    for name, schema in schema_of(query).get("properties", {}).items():
        parameter: Json = {"name": name, "in": "query", "description": schema.pop("description")}
        (example,) = schema.pop("examples", [None])
        parameter["schema"] = schema
        if example is not None:
            parameter["example"] = example
        yield parameter


def _request_headers(route: Route[Any]) -> Iterator[Json]:
    if route.idempotent:
        yield {"name": IDEMPOTENCY_KEY.name, "in": "header", **_header(IDEMPOTENCY_KEY)}


def _has_id(route: Route[Any]) -> bool:
    return "{timer_id}" in route.path


def _ref(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


def _without_empty(node: Json) -> Json:
    return {name: value for name, value in node.items() if value not in ("", [], {})}
