"""The tree of errors that a caller of the service can meet.

TimersError
├── RequestError            the client sent something wrong; the request changed nothing
│   ├── MalformedBody       not JSON
│   ├── InvalidRequest      JSON, but no valid request: names the fault of every field
│   ├── UnsupportedMediaType
│   ├── BodyTooLarge
│   ├── Unauthorized        no key, or one that is unknown or revoked
│   ├── CrossSiteRequest    Host or Origin is not this machine's
│   ├── RouteNotFound
│   ├── MethodNotAllowed
│   ├── TimerNotFound
│   ├── TimerInFlight       its webhook is being sent right now
│   ├── TimerExpired        it is due, so it cannot be moved
│   ├── TimerNotFailed      it has not failed, so it cannot be replayed
│   ├── TimerChanged        it was changed at the same time
│   ├── RateLimited         the tenant sets timers faster than it may
│   └── PurgeDisabled
├── KeyNotFound             the key to revoke was never issued, or is revoked already
├── InvalidTenant           a key cannot be issued for a tenant of this name
├── Unavailable             the store cannot be reached or cannot write; try again later
└── StartupError            the service cannot start with its settings
    ├── InvalidSettings
    ├── DataFolderError     missing, read-only, or held by another server
    └── StoreFileError      damaged, foreign, or written by a newer version
"""

from __future__ import annotations

from dataclasses import dataclass


class TimersError(Exception):
    """Base of the tree. ``code`` is stable: clients and logs may match on it."""

    code = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(TimersError):
    """The client sent something wrong; the request changed nothing and never fires."""

    code = "bad-request"


class MalformedBody(RequestError):
    """The body is not JSON."""

    code = "malformed-body"


@dataclass(frozen=True)
class Fault:
    """What is wrong with one field of a request."""

    field: str
    message: str


class InvalidRequest(RequestError):
    """Well-formed JSON, or a query, that is no valid request; ``faults`` has every fault."""

    code = "invalid-request"

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults


class UnsupportedMediaType(RequestError):
    """The body's Content-Type is not JSON."""

    code = "unsupported-media-type"


class BodyTooLarge(RequestError):
    """The body is longer than any valid one."""

    code = "body-too-large"


class Unauthorized(RequestError):
    """The request carries no key, or one that was never issued or is revoked."""

    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("Send a key that is not revoked: Authorization: Bearer wt_...")


class CrossSiteRequest(RequestError):
    """The offline server was called by a foreign name, or by a web page of another site."""

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
    """There is no timer of that id: never set, cancelled, purged, or no id at all."""

    code = "timer-not-found"


class TimerInFlight(RequestError):
    """The timer's webhook is being sent right now: it can be neither cancelled nor moved."""

    code = "timer-in-flight"


class TimerExpired(RequestError):
    """The timer is due, so it can no longer be moved."""

    code = "timer-expired"


class TimerNotFailed(RequestError):
    """Only a timer that failed for good can be replayed."""

    code = "timer-not-failed"


class TimerChanged(RequestError):
    """The timer was changed between our read and our write."""

    code = "timer-changed"


class RateLimited(RequestError):
    """The tenant sets timers faster than it may. ``retry_after`` is in seconds."""

    code = "rate-limited"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class PurgeDisabled(RequestError):
    """Removing all timers at once is switched off in this stage."""

    code = "purge-disabled"


class KeyNotFound(TimersError):
    """There is no key of that id: it was never issued, or is revoked already."""

    code = "key-not-found"


class InvalidTenant(TimersError):
    """A tenant cannot have this name."""

    code = "invalid-tenant"


class Unavailable(TimersError):
    """The store cannot be reached or cannot write; nothing was acknowledged.

    ``retry_after`` is in seconds.
    """

    code = "unavailable"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class StartupError(TimersError):
    """The service cannot start with its settings; ``detail`` says what to change."""

    code = "startup"


class InvalidSettings(StartupError):
    """A setting has a value it cannot have."""

    code = "invalid-settings"


class DataFolderError(StartupError):
    """The data folder cannot be used: not writable, or another server holds it."""

    code = "data-folder"


class StoreFileError(StartupError):
    """The store file is damaged, is not ours, or was written by a newer version."""

    code = "store-file"
