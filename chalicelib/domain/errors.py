"""The errors of the service, as one tree.

TimersError
├── RequestError            the service refuses the request, which changed nothing
│   ├── MalformedBody       not JSON
│   ├── InvalidRequest      JSON, but not a valid request: lists the faults of all fields
│   ├── UnsupportedMediaType
│   ├── BodyTooLarge
│   ├── RequestTimeout      its body did not come in time
│   ├── Unauthorized        no key, or one that is unknown or revoked
│   ├── CrossSiteRequest    its Host or Origin is not this machine
│   ├── RouteNotFound
│   ├── MethodNotAllowed
│   ├── TimerNotFound
│   ├── TimerInFlight       a sender holds it, so it cannot be cancelled, moved or replayed
│   ├── TimerSettled        it has fired or failed, so it is too late to cancel or fire it
│   ├── TimerExpired        it is due, so it cannot be moved
│   ├── TimerNotFailed      it has not failed, so it cannot be replayed
│   ├── TimerChanged        another request changed it at the same time
│   ├── IdempotencyKeyReused  the key was used for another request
│   ├── RateLimited         the tenant sets timers faster than its rate
│   ├── QuotaExceeded       the tenant has stored as much as it may
│   ├── ClockMoving         another request moves the test clock
│   ├── AdvanceUnfinished   the test clock was moved a part of the way
│   └── PurgeDisabled
├── KeyNotFound             the API key to revoke was never issued, or is revoked already
├── InvalidTenant           an API key cannot be issued for a tenant of this name
├── Unavailable             the store cannot be reached or cannot write; try again later
└── StartupError            the service cannot start with its settings
    ├── InvalidSettings
    ├── DataFolderError     the folder is missing, read-only, not safe, or of another server
    └── StoreFileError      the file is damaged, not ours, or written by a newer version
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_FAULTS = 20
"""The faults of one request that are named. The others are only mentioned."""

MAX_EXCERPT_CHARACTERS = 40
"""The characters of a client's text that an error repeats."""


def excerpt(text: str) -> str:
    """Return the beginning of a client's text, short enough for an error."""
    return text if len(text) <= MAX_EXCERPT_CHARACTERS else text[:MAX_EXCERPT_CHARACTERS] + "…"


class TimersError(Exception):
    """Base of the tree. ``code`` is stable, so clients and logs may match on it."""

    code = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(TimersError):
    """The service refuses the request, which changed nothing."""

    code = "bad-request"


class MalformedBody(RequestError):
    """The body is not JSON."""

    code = "malformed-body"


@dataclass(frozen=True)
class Fault:
    """One field of a request, and why it was refused."""

    field: str
    message: str


class InvalidRequest(RequestError):
    """The body is JSON but not a valid request, or the query is not valid.

    ``faults`` has every fault, at most ``max_faults``. Long names of fields are cut off.
    """

    code = "invalid-request"

    def __init__(self, faults: list[Fault], max_faults: int = MAX_FAULTS) -> None:
        named = [Fault(excerpt(fault.field), fault.message) for fault in faults[:max_faults]]
        detail = "; ".join(f"{fault.field}: {fault.message}" for fault in named)
        super().__init__(detail + ("; and more" if len(faults) > max_faults else ""))
        self.faults = named


class UnsupportedMediaType(RequestError):
    """The body's Content-Type is not JSON."""

    code = "unsupported-media-type"


class BodyTooLarge(RequestError):
    """The body is longer than any valid one."""

    code = "body-too-large"


class RequestTimeout(RequestError):
    """The body of the request did not come in time."""

    code = "request-timeout"


class Unauthorized(RequestError):
    """The request has no API key, or one that was never issued or is revoked."""

    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("Send a key that is not revoked: Authorization: Bearer wt_...")


class CrossSiteRequest(RequestError):
    """The offline server was called under another host name, or by a web page of another site.

    Without this check, any web page could set timers on the user's own machine.
    """

    code = "foreign-caller"


class RouteNotFound(RequestError):
    """No route has this path."""

    code = "route-not-found"


class MethodNotAllowed(RequestError):
    """The route exists, but not with this method."""

    code = "method-not-allowed"

    def __init__(self, allowed: list[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"this path answers {self.allowed}")


class TimerNotFound(RequestError):
    """There is no timer of that id. It was never set, or it is cancelled or purged."""

    code = "timer-not-found"


class TimerInFlight(RequestError):
    """A sender holds the timer, so it cannot be cancelled, moved or replayed now."""

    code = "timer-in-flight"


class TimerSettled(RequestError):
    """The timer has fired or failed, so it can no longer be cancelled or fired."""

    code = "timer-settled"


class TimerExpired(RequestError):
    """The timer is due, so it can no longer be moved."""

    code = "timer-expired"


class TimerNotFailed(RequestError):
    """Only a timer that failed for good can be replayed."""

    code = "timer-not-failed"


class TimerChanged(RequestError):
    """The timer was changed between our read and our write."""

    code = "timer-changed"


class IdempotencyKeyReused(RequestError):
    """The key of the request was used for another one, whose timer still exists."""

    code = "idempotency-key-reused"


class RateLimited(RequestError):
    """The tenant sets timers faster than its rate. ``retry_after`` is in seconds."""

    code = "rate-limited"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class QuotaExceeded(RequestError):
    """The tenant has as many timers stored as it may, or as many bytes."""

    code = "quota-exceeded"


class ClockMoving(RequestError):
    """Another request moves the test clock now."""

    code = "clock-moving"


class AdvanceUnfinished(RequestError):
    """The test clock was moved, but not as far as the request says. It goes on from there."""

    code = "advance-unfinished"


class PurgeDisabled(RequestError):
    """Removing all timers at once is switched off in this stage."""

    code = "purge-disabled"


class KeyNotFound(TimersError):
    """There is no API key of that id. It was never issued, or is revoked already."""

    code = "key-not-found"


class InvalidTenant(TimersError):
    """A tenant cannot have this name."""

    code = "invalid-tenant"


class Unavailable(TimersError):
    """The store cannot be reached or cannot write. Nothing was acknowledged.

    A write may have applied all the same, if only its response was lost. ``retry_after`` is in
    seconds.
    """

    code = "unavailable"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class StartupError(TimersError):
    """The service cannot start with its settings; ``detail`` says what to change."""

    code = "startup"


class InvalidSettings(StartupError):
    """A setting has an invalid value."""

    code = "invalid-settings"


class DataFolderError(StartupError):
    """The data folder cannot be used: not writable, not safe, or another server holds it."""

    code = "data-folder"


class StoreFileError(StartupError):
    """The store file is damaged, a link, not ours, or was written by a newer version."""

    code = "store-file"
