"""The limit of open files: each call in flight and each connection of a client needs one."""

from __future__ import annotations

import contextlib
import logging
import resource

log = logging.getLogger(__name__)

RESERVED = 1_280
"""Open files that are not calls in flight: 1,000 idle connections, the store, the API's workers."""

RESERVED_FRACTION = 0.25
"""The most of a low limit that is kept back. Idle connections give way to calls, so they may."""

MACOS_OPEN_MAX = 10_240
"""macOS says that there is no hard limit, and may refuse more than this (``OPEN_MAX``)."""


def raise_limit(wanted: int) -> int:
    """Raise this process's limit of open files for ``wanted`` connections, as far as it may.

    Return how many connections the limit allows then. A warning says if that is fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = _set_limit(soft, hard, needed)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = connections_within(soft, wanted)
    if allowed < wanted:
        log.warning(
            "a limit of %d open files allows %d connections at once instead of %d: ulimit -n %d",
            soft,
            allowed,
            wanted,
            needed,
        )
    return allowed


def _set_limit(soft: int, hard: int, needed: int) -> int:
    """Set the limit as near to ``needed`` as the system accepts; return the limit that holds."""
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    for limit in (wanted, MACOS_OPEN_MAX):
        if soft < limit <= wanted:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return limit
    return soft


def connections_within(limit: int, wanted: int) -> int:
    """Return how many of ``wanted`` connections a limit of open files leaves room for."""
    reserved = min(RESERVED, int(limit * RESERVED_FRACTION))
    return max(1, min(wanted, limit - reserved))
