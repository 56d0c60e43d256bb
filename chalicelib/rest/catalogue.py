"""The catalogue of errors: the HTTP status of each, its headers, and when it is answered.

Three things come from it: the problem documents that are sent, the responses of the OpenAPI
document, and ``docs/errors.md``. The codes are those of the error tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chalicelib.domain import errors
from chalicelib.domain.errors import TimersError
from chalicelib.rest.headers import ALLOW, RETRY_AFTER, WWW_AUTHENTICATE, Header
from chalicelib.rest.reading import MAX_BODY_BYTES, too_large


class Internal(TimersError):
    """A fault of the service. No detail of it leaves the log."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("The service failed; it is logged.")


class Throttled(TimersError):
    """API Gateway refuses a request by its rate limit; none of our code raises this."""

    code = "throttled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of one kind of error beside its code.

    ``detail`` is an example. ``header`` is sent with the error; its value is what ``value``
    returns for the error.
    """

    status: int
    when: str
    detail: str
    header: Header | None = None
    value: Callable[[Any], str] = str


def title_of(code: str) -> str:
    """Return the title of the error ``code``: the code as words."""
    return code.replace("-", " ").capitalize()


def _retry_after(error: errors.RateLimited | errors.Unavailable) -> str:
    return str(error.retry_after)


CATALOGUE: dict[type[TimersError], Entry] = {
    errors.MalformedBody: Entry(
        status=400,
        when="The body is not JSON, or shorter than its `Content-Length`.",
        detail="The body must be JSON: the body is empty",
    ),
    errors.Unauthorized: Entry(
        status=401,
        when="The request carries no key, or one that was never issued or is revoked.",
        detail=errors.Unauthorized().detail,
        header=WWW_AUTHENTICATE,
        value=lambda _error: "Bearer",
    ),
    errors.CrossSiteRequest: Entry(
        status=403,
        when="Offline and without keys: `Host` or `Origin` is not this machine's.",
        detail="Host 'evil.example' is not this machine's; TIMERS_ALLOWED_HOSTS names others.",
    ),
    errors.PurgeDisabled: Entry(
        status=403,
        when="Removing all timers is switched off.",
        detail="Removing all timers is switched off here; TIMERS_ALLOW_PURGE=on allows it.",
    ),
    errors.TimerNotFound: Entry(
        status=404,
        when="The caller's tenant has no timer of that id, or it is no id at all.",
        detail="There is no timer 1.",
    ),
    errors.RouteNotFound: Entry(
        status=404,
        when="No route has this path.",
        detail="There is no /timer; GET / names the routes.",
    ),
    errors.MethodNotAllowed: Entry(
        status=405,
        when="The path has no such method. No path has HEAD or OPTIONS.",
        detail=errors.MethodNotAllowed(["DELETE", "GET", "POST"]).detail,
        header=ALLOW,
        value=lambda error: str(error.allowed),
    ),
    errors.TimerInFlight: Entry(
        status=409,
        when="The webhook of the timer is being sent right now.",
        detail="The webhook of timer 1 is on the wire right now.",
    ),
    errors.TimerExpired: Entry(
        status=409,
        when="The timer is due, so it can no longer be moved.",
        detail="The time of timer 1 has come; it cannot be moved.",
    ),
    errors.TimerNotFailed: Entry(
        status=409,
        when="The timer has not failed, so it cannot be replayed.",
        detail="Timer 1 is pending, not failed.",
    ),
    errors.TimerChanged: Entry(
        status=409,
        when="Another request or an attempt changed the timer at the same time.",
        detail="Timer 1 has just changed; look at it again.",
    ),
    errors.BodyTooLarge: Entry(
        status=413,
        when=f"The body has more than {MAX_BODY_BYTES:,} bytes, even where none is read.",
        detail=too_large().detail,
    ),
    errors.UnsupportedMediaType: Entry(
        status=415,
        when="The Content-Type is not application/json.",
        detail="Content-Type is text/plain; send application/json "
        "(curl: -H 'Content-Type: application/json').",
    ),
    errors.InvalidRequest: Entry(
        status=422,
        when="The body is JSON but no valid request, or a query parameter is not valid.",
        detail="minuets: unknown field; url: is required",
    ),
    errors.RateLimited: Entry(
        status=429,
        when="The tenant sets timers faster than `TIMERS_CREATES_PER_SECOND`.",
        detail="At most 100 timers a second may be set.",
        header=RETRY_AFTER,
        value=_retry_after,
    ),
    Throttled: Entry(
        status=429,
        when="On AWS: there are too many requests at once.",
        detail="Too many requests at once; try again in a moment.",
        header=RETRY_AFTER,
    ),
    Internal: Entry(
        status=500,
        when="The service has a fault. Its log says more.",
        detail=Internal().detail,
    ),
    errors.Unavailable: Entry(
        status=503,
        when="The store is away, busy or full, or keys cannot be looked up.",
        detail="The dispatcher is not running.",
        header=RETRY_AFTER,
        value=_retry_after,
    ),
    errors.StartupError: Entry(
        status=503,
        when="The service cannot start as it is set up.",
        detail="The service cannot start.",
    ),
    errors.InvalidSettings: Entry(
        status=503,
        when="A setting has a value that is not allowed.",
        detail="PORT=x: must be a number from 1 to 65535",
    ),
    errors.DataFolderError: Entry(
        status=503,
        when="The data folder is missing, read-only, or held by another server.",
        detail="another server (pid 7) works on /data; stop it, or name another folder with "
        "DATA_DIR=…",
    ),
    errors.StoreFileError: Entry(
        status=503,
        when="The store file is damaged, foreign, or of a newer version.",
        detail="/data/timers.db is a SQLite file of another application",
    ),
}


def entry_of(kind: type[TimersError]) -> Entry | None:
    """Return the entry of ``kind`` or of its nearest base; None if no request meets it."""
    return next((CATALOGUE[base] for base in kind.__mro__ if base in CATALOGUE), None)
