"""The RSGI application that each of granian's workers loads."""

from __future__ import annotations

import os

from app import app
from chalicelib.settings import load
from local.gateway import Environ, Gateway
from local.parent import PARENT, exit_with
from local.rsgi import Application

# granian restarts its workers, but nobody ends them when granian is killed.
exit_with(int(os.environ[PARENT]))
gateway = Gateway(app)
embedded = load().engine == "embedded"


def is_quick(environ: Environ) -> bool:
    """Tell whether a request takes a fraction of a millisecond: at most one row of a file."""
    return (
        embedded
        and environ["REQUEST_METHOD"] in ("GET", "HEAD")
        and gateway.route_of(environ) in ("/", "/timers/{timer_id}", "/timers/by-key/{key}")
    )


LONG = {
    "/_clock/advance",
    *(f"/timers/{verb}" for verb in ("batch", "cancel", "fire", "move", "replay")),
}
"""The routes of requests about many timers."""


def is_slow(environ: Environ) -> bool:
    """Tell whether a request may read or write thousands of rows, or wait for many calls."""
    route, method = gateway.route_of(environ), environ["REQUEST_METHOD"]
    return route in LONG or (route == "/timers" and method != "POST")


application = Application(gateway, quick=is_quick, slow=is_slow)
