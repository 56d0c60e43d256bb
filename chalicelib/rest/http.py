"""The glue between HTTP and the use cases: requests in, answers out, errors as problem+json."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from chalice.app import Chalice, Request, Response

from chalicelib.domain import errors
from chalicelib.domain.errors import Fault, InvalidRequest, TimersError
from chalicelib.domain.timer import DEFAULT_TENANT, Status
from chalicelib.rest import cursor
from chalicelib.rest.cursor import is_id
from chalicelib.rest.schemas import timer_item
from chalicelib.service.ports import Page
from chalicelib.settings import Settings, is_loopback

log = logging.getLogger(__name__)

Headers = dict[str, Any]
View = Callable[..., Response]

ANY_TYPE = ["*/*"]
"""Every Content-Type reaches the views, so that a wrong one is refused in our own words."""

MAX_BODY_BYTES = 65_536
MAX_PAGE_BYTES = 3_000_000
"""A Lambda may answer with 6 MB (AWS limit), in which every quote of the body is escaped."""

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

_LIMIT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_JSON: Headers = {"Content-Type": "application/json"}
_PROBLEM: Headers = {"Content-Type": "application/problem+json"}
_INTERNAL_ERROR = 500
_UNAVAILABLE = 503

_STATUSES: dict[type[TimersError], int] = {
    errors.MalformedBody: 400,
    errors.Unauthorized: 401,
    errors.CrossSiteRequest: 403,
    errors.PurgeDisabled: 403,
    errors.RouteNotFound: 404,
    errors.TimerNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.TimerInFlight: 409,
    errors.TimerExpired: 409,
    errors.TimerNotFailed: 409,
    errors.TimerChanged: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.InvalidRequest: 422,
    errors.RateLimited: 429,
    errors.Unavailable: _UNAVAILABLE,
    errors.StartupError: _UNAVAILABLE,
}


def endpoints(app: Chalice) -> Callable[[View], View]:
    """Return the decorator of ``app``'s views.

    It hands the view the request, and turns every error that leaves it into problem+json.
    """

    def endpoint(view: View) -> View:
        @functools.wraps(view)
        def answered(**arguments: str) -> Response:
            try:
                return view(app.current_request, **arguments)
            except TimersError as error:
                return problem(error)
            except Exception:
                log.exception("%s failed", view.__name__)
                return internal_error()

        return answered

    return endpoint


def tenant_endpoints(app: Chalice, *, needs_key: bool) -> Callable[[View], View]:
    """Return the decorator of the views that act for a caller.

    It does what that of ``endpoints`` does, and hands the view the caller's tenant besides.
    """
    endpoint = endpoints(app)

    def tenant_endpoint(view: View) -> View:
        @endpoint
        @functools.wraps(view)
        def admitted(request: Request, **arguments: str) -> Response:
            return view(request, tenant(request, needs_key=needs_key), **arguments)

        return admitted

    return tenant_endpoint


def tenant(request: Request, *, needs_key: bool) -> str:
    """Return whose timers ``request`` is about: what the authorizer found out.

    Raises ``Unauthorized`` where a key is needed and no authorizer has spoken, whatever the
    gateway let through, and ``Unavailable`` where it could not find out. Whom an authorizer
    names is never taken for anybody else.
    """
    told = request.context.get("authorizer") or {}
    if isinstance(told.get("tenant"), str) and told["tenant"]:
        return str(told["tenant"])
    if told.get("refused") == errors.Unavailable.code:
        raise errors.Unavailable("Keys cannot be looked up now.")
    if needs_key:
        raise errors.Unauthorized
    return DEFAULT_TENANT


def own_problems(event: Any, get_response: Callable[[Any], Response]) -> Response:
    """Give the errors that Chalice makes before any view the shape of ours (a middleware)."""
    response = get_response(event)
    chalice_made = isinstance(response.body, dict) and response.body.keys() == {"Code", "Message"}
    if not chalice_made:
        return response
    if "Allow" in response.headers:
        return problem(errors.MethodNotAllowed(str(response.headers["Allow"]).split(", ")))
    return internal_error()


def problem(error: TimersError) -> Response:
    """Return ``error`` as a problem document (RFC 9457)."""
    status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    document = _problem_document(error.code, status, error.detail)
    headers = dict(_PROBLEM)
    if isinstance(error, InvalidRequest):
        document["errors"] = [
            {"field": fault.field, "message": fault.message} for fault in error.faults
        ]
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = error.allowed
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, (errors.Unavailable, errors.RateLimited)):
        headers["Retry-After"] = str(error.retry_after)
    return Response(json.dumps(document), headers, status)


def internal_error() -> Response:
    """Return the answer to a fault of ours: no detail leaves the log."""
    document = _problem_document("internal", _INTERNAL_ERROR, "The service failed; it is logged.")
    return Response(json.dumps(document), dict(_PROBLEM), _INTERNAL_ERROR)


def answer(body: Any, status: int = 200, headers: Headers | None = None) -> Response:
    """Return ``body`` as JSON."""
    return Response(json.dumps(body), _JSON if headers is None else _JSON | headers, status)


def created(request: Request, timer_id: int) -> Response:
    """Return the answer to a timer that was set."""
    path = request.context.get("path", request.path).rstrip("/")
    return answer({"id": timer_id}, 201, {"Location": f"{path}/{timer_id}"})


def removed() -> Response:
    """Return the answer to a timer that is gone."""
    return Response("", {}, 204)


def json_body(request: Request) -> bytes:
    """Return the body of a request that must carry JSON.

    Raises ``UnsupportedMediaType`` and ``BodyTooLarge``. A missing Content-Type is read as JSON.
    """
    content_type = request.headers.get("content-type") or "application/json"
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise errors.UnsupportedMediaType(
            f"Content-Type is {content_type[:100]}; send application/json "
            "(curl: -H 'Content-Type: application/json')."
        )
    body: bytes = request.raw_body  # type: ignore[assignment]
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    return body


def too_large() -> errors.BodyTooLarge:
    """Return the error for a body that no valid request needs."""
    return errors.BodyTooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")


def timer_id(text: str) -> int:
    """Read an id from a path. Raises ``TimerNotFound``: what is no id names no timer."""
    if not is_id(text):
        raise errors.TimerNotFound(f"There is no timer {text[:30]!r}.")
    return int(text)


def list_query(request: Request) -> dict[str, Any]:
    """Read ``limit``, ``status`` and ``cursor``. Raises ``InvalidRequest`` with every fault."""
    given: Any = request.query_params or {}
    faults: list[Fault] = []
    query = {
        "limit": _read(given, "limit", _limit, DEFAULT_LIMIT, faults),
        "status": _read(given, "status", _status, None, faults),
        "before": _read(given, "cursor", cursor.read, None, faults),
    }
    if faults:
        raise InvalidRequest(faults)
    return query


def listing(request: Request, page: Page, query: dict[str, Any], now: float) -> Response:
    """Return one page of timers, with a link to the next (RFC 8288).

    A page whose URLs are long ends early.
    """
    headers = {}
    items, before, size = [], page.before, 0
    for timer in page.timers:
        items.append(json.dumps(timer_item(timer, now)))
        size += len(items[-1])
        if size >= MAX_PAGE_BYTES and len(items) < len(page.timers):
            before = timer.id
            break
    if before is not None:
        following = {"limit": query["limit"], "cursor": cursor.write(before)}
        if query["status"]:
            following["status"] = query["status"].value
        path = request.context.get("path", request.path)
        headers["Link"] = f'<{path}?{urlencode(following)}>; rel="next"'
    return Response(f"[{', '.join(items)}]", _JSON | headers, 200)


def admitted(
    request: Request, get_response: Callable[[Any], Response], settings: Settings
) -> Response:
    """Answer ``request`` unless, on this machine and without keys, it is foreign (a middleware).

    Where a key is needed nothing is foreign: no web page has one, whatever it calls itself.
    """
    if not (settings.in_lambda or settings.needs_key):
        try:
            _refuse_foreign(request, settings.allowed_hosts)
        except errors.CrossSiteRequest as error:
            return problem(error)
    return get_response(request)


def routes(table: dict[str, dict[str, Any]]) -> list[str]:
    """Return ``METHOD /path`` for every route."""
    return [f"{method} {path}" for path in sorted(table) for method in sorted(table[path])]


def _refuse_foreign(request: Request, allowed_hosts: frozenset[str]) -> None:
    """Raise ``CrossSiteRequest`` unless the request names this machine and no other site sent it.

    On loopback the browser is the attacker's way in: a page of another site may post here
    (Origin), or have its own name resolve to 127.0.0.1 (Host).
    """
    host = request.headers.get("host", "")
    if not _is_local(_hostname("//" + host), allowed_hosts):
        raise errors.CrossSiteRequest(
            f"Host {host[:100]!r} is not this machine's; TIMERS_ALLOWED_HOSTS names others."
        )
    origin = request.headers.get("origin")
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


def _problem_document(code: str, status: int, detail: str) -> dict[str, Any]:
    title = code.replace("-", " ").capitalize()
    return {
        "type": f"urn:webhook-timers:{code}",
        "title": title,
        "status": status,
        "detail": detail,
    }


def _read(
    given: Any, name: str, parse: Callable[[str], Any], default: Any, faults: list[Fault]
) -> Any:
    text = given.get(name)
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError as error:
        faults.append(Fault(name, str(error)))
        return default


def _limit(text: str) -> int:
    if not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError as error:
        names = ", ".join(status.value for status in Status)
        raise ValueError(f"must be one of {names}") from error
