"""The catalogue of errors: the HTTP status of each error, its header, and when it is sent.

The problem documents, the responses of the OpenAPI document and ``docs/errors.md`` are made from
it. The codes are those of the error tree (``domain/errors.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chalicelib.domain import errors
from chalicelib.domain.errors import MAX_FAULTS, Fault, TimersError
from chalicelib.rest.headers import ALLOW, RETRY_AFTER, WWW_AUTHENTICATE, Header
from chalicelib.rest.reading import MAX_BATCH_BYTES, MAX_BODY_BYTES, too_large


class Internal(TimersError):
    """A fault of the service. Only the log has its details."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("The service failed; it is logged.")


class Throttled(TimersError):
    """API Gateway refuses a request because of its rate limit. None of our code raises this."""

    code = "throttled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One kind of error, shown by an ``example``, and in words ``when`` it is sent.

    ``header`` is sent with the error. ``header_value`` returns its value for one error.
    """

    example: TimersError
    status: int
    when: str
    header: Header | None = None
    header_value: Callable[[Any], str] = str

    @property
    def code(self) -> str:
        """The stable code of the error."""
        return self.example.code

    @property
    def title(self) -> str:
        """The title of the error's problem document."""
        return title_of(self.code)


def title_of(code: str) -> str:
    """Return the title of the error with this code: the code as words."""
    return code.replace("-", " ").capitalize()


def _retry_after(error: errors.RateLimited | errors.Unavailable) -> str:
    return str(error.retry_after)


_ENTRIES = (
    Entry(
        example=errors.MalformedBody("The body must be JSON: the body is empty"),
        status=400,
        when="The body is not JSON, or shorter than its `Content-Length`.",
    ),
    Entry(
        example=errors.Unauthorized(),
        status=401,
        when="The request carries no key, or one that was never issued or is revoked.",
        header=WWW_AUTHENTICATE,
        header_value=lambda _error: "Bearer",
    ),
    Entry(
        example=errors.CrossSiteRequest(
            "Host 'evil.example' is not this machine's; TIMERS_ALLOWED_HOSTS names others."
        ),
        status=403,
        when="Offline and without keys: `Host` is not this machine's, or a page of another origin "
        "sent the request (`Origin`, `Sec-Fetch-Site`).",
    ),
    Entry(
        example=errors.PurgeDisabled(
            "Removing all timers is switched off here; TIMERS_ALLOW_PURGE=on allows it."
        ),
        status=403,
        when="Removing all timers is switched off.",
    ),
    Entry(
        example=errors.TimerNotFound("There is no timer 1."),
        status=404,
        when="The caller's tenant has no timer with this id, or the text is not an id.",
    ),
    Entry(
        example=errors.RouteNotFound("There is no /timer; GET / names the routes."),
        status=404,
        when="No route has this path.",
    ),
    Entry(
        example=errors.MethodNotAllowed(["DELETE", "GET", "POST"]),
        status=405,
        when="The path has no such method. No path has OPTIONS. HEAD counts as GET.",
        header=ALLOW,
        header_value=lambda error: str(error.allowed),
    ),
    Entry(
        example=errors.RequestTimeout("The body did not come within 10 s. Nothing was changed."),
        status=408,
        when="The body did not come in time: 10 s on one machine.",
    ),
    Entry(
        example=errors.TimerInFlight("The webhook of timer 1 is on the wire right now."),
        status=409,
        when="The timer is in flight: its webhook is being called right now.",
    ),
    Entry(
        example=errors.TimerSettled("Timer 1 has fired; it cannot be cancelled."),
        status=409,
        when="The timer has fired or failed, so it is too late to cancel or fire it. It stays "
        "as it is.",
    ),
    Entry(
        example=errors.TimerExpired("The time of timer 1 has come; it cannot be moved."),
        status=409,
        when="The due time of the timer has passed, so it can no longer be moved.",
    ),
    Entry(
        example=errors.TimerNotFailed("Timer 1 is pending, not failed."),
        status=409,
        when="The timer has not failed, so it cannot be replayed.",
    ),
    Entry(
        example=errors.TimerChanged("Timer 1 has just changed; look at it again."),
        status=409,
        when="Another request or an attempt changed the timer at the same time.",
    ),
    Entry(
        example=errors.ClockMoving("Another request moves the clock; wait for its response."),
        status=409,
        when="With a test clock: another request moves the clock right now.",
    ),
    Entry(
        example=errors.AdvanceUnfinished(
            "The clock stopped at 2026-11-24T15:20:00.000Z after 10,000 calls. Repeat the request "
            "to go on."
        ),
        status=409,
        when="With a test clock: the clock was moved only as far as `detail` says, because one "
        "request makes 10,000 calls and takes 5 minutes at most. What was due until then was "
        "called.",
    ),
    Entry(
        example=too_large(),
        status=413,
        when=f"The body has more than {MAX_BODY_BYTES:,} bytes, that of a batch more than "
        f"{MAX_BATCH_BYTES:,}, even where none is read.",
    ),
    Entry(
        example=errors.UnsupportedMediaType(
            "Content-Type is text/plain; send application/json "
            "(curl: -H 'Content-Type: application/json')."
        ),
        status=415,
        when="The Content-Type is not application/json.",
    ),
    Entry(
        example=errors.InvalidRequest(
            [
                Fault("url", "is required"),
                Fault("minuets", "unknown field; did you mean minutes?"),
            ]
        ),
        status=422,
        when="The body is JSON but no valid request, or a query parameter is not valid; so is a "
        f"name that is unknown or given twice. `errors` has {MAX_FAULTS} faults at most.",
    ),
    Entry(
        example=errors.IdempotencyKeyReused(
            "This Idempotency-Key was used for another request, whose timer still exists. Send a "
            "new key with a new request."
        ),
        status=422,
        when="The `Idempotency-Key` was used for another request, and the timer of that request "
        "still exists.",
    ),
    Entry(
        example=errors.RateLimited(
            "At most 100 timers a second may be set, moved, fired or replayed."
        ),
        status=429,
        when="The tenant sets, moves, fires or replays timers faster than "
        "`TIMERS_CREATES_PER_SECOND`.",
        header=RETRY_AFTER,
        header_value=_retry_after,
    ),
    Entry(
        example=errors.QuotaExceeded(
            "At most 1,000,000 timers may be stored. Cancel some, or wait until timers that have "
            "fired are removed."
        ),
        status=429,
        when="On one machine: the tenant has `TIMERS_STORED_TIMERS` timers stored, or "
        "`TIMERS_STORED_BYTES` bytes. Time alone may not help, so there is no `Retry-After`.",
    ),
    Entry(
        example=Throttled("Too many requests at once; try again in a moment."),
        status=429,
        when="On AWS: there are too many requests at once.",
        header=RETRY_AFTER,
    ),
    Entry(
        example=Internal(),
        status=500,
        when="The service has a fault. Its log says more.",
    ),
    Entry(
        example=errors.Unavailable("The dispatcher is not running."),
        status=503,
        when="The store cannot be reached, is busy or full, or keys cannot be looked up.",
        header=RETRY_AFTER,
        header_value=_retry_after,
    ),
    Entry(
        example=errors.StartupError("The service cannot start."),
        status=503,
        when="The service cannot start with its configuration.",
    ),
    Entry(
        example=errors.InvalidSettings("PORT=x: must be a number from 1 to 65535"),
        status=503,
        when="A setting has a value that is not allowed.",
    ),
    Entry(
        example=errors.DataFolderError(
            "another server (pid 7) works on /data; stop it, or name another folder with DATA_DIR=…"
        ),
        status=503,
        when="The data folder is missing, read-only, open to others, or held by another server.",
    ),
    Entry(
        example=errors.StoreFileError("/data/timers.db is a SQLite file of another application"),
        status=503,
        when="The store file is damaged, a link, foreign, or of a newer version.",
    ),
)

# In the order of docs/errors.md: by status.
CATALOGUE: dict[type[TimersError], Entry] = {type(entry.example): entry for entry in _ENTRIES}


def entry_of(kind: type[TimersError]) -> Entry | None:
    """Return the entry of ``kind`` or of its nearest base; None if there is none."""
    # By base: an error that only one engine has is shown as the general one that it specialises.
    return next((CATALOGUE[base] for base in kind.__mro__ if base in CATALOGUE), None)
