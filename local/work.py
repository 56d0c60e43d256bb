"""How much work a request is, by its route and method. So it is known who must not wait for it."""

from __future__ import annotations

import enum

_MANY = frozenset(
    (
        "/_clock/advance",
        *(f"/timers/{verb}" for verb in ("batch", "cancel", "fire", "move", "replay")),
    )
)
"""The routes of requests about many timers."""


class Work(enum.Enum):
    """How much work a request is."""

    NOTHING = enum.auto()
    """It needs no store."""

    READ = enum.auto()
    """It reads at most one timer."""

    WRITE = enum.auto()
    """It writes at most one timer."""

    OTHER = enum.auto()
    """It waits for something else."""

    MANY = enum.auto()
    """It may read or write thousands of timers, or wait for many calls."""


def embedded_work(route: str | None, method: str) -> Work:
    """Return the work of a request on the embedded engine."""
    if route in (None, "/"):
        return Work.NOTHING
    if route in _MANY or (route == "/timers" and method != "POST"):
        return Work.MANY
    # One check of the health serves all who ask meanwhile: they wait for a lock. The document is
    # long.
    if route in ("/health", "/openapi.json"):
        return Work.OTHER
    return Work.READ if method in ("GET", "HEAD") else Work.WRITE


def waiting_work(route: str | None, method: str) -> Work:
    """Return the work of a request where reads and writes wait: for AWS, or for the test clock."""
    work = embedded_work(route, method)
    return Work.OTHER if work in (Work.READ, Work.WRITE) else work
