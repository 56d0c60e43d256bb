"""The only place where the engines meet the service."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
import threading
import time

from chalicelib.errors import InvalidSettings, StartupError
from chalicelib.scheduling import Scheduling
from chalicelib.settings import AWS, Settings, load

log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process."""
    return load()


@functools.lru_cache(maxsize=1)
def scheduling() -> Scheduling:
    """Return the use cases on the engine that is set."""
    current = settings()
    if current.engine == AWS:
        raise InvalidSettings("TIMERS_ENGINE=aws: this version has the embedded engine only")
    return _embedded_scheduling(current)


def _embedded_scheduling(current: Settings) -> Scheduling:
    from chalicelib.embedded.client import RemoteTimerStore
    from chalicelib.embedded.folder import DataFolder
    from chalicelib.embedded.waker import ImpliedWaker

    store = RemoteTimerStore(DataFolder(current.data_dir))
    return Scheduling(store, ImpliedWaker(), wall_clock, allow_purge=current.allow_purge)


def wall_clock() -> float:
    """Return epoch milliseconds, UTC."""
    return time.time() * 1000


async def serve_embedded(stopped: asyncio.Event) -> None:
    """Own the data folder and fire its timers until ``stopped``. Raises ``StartupError``."""
    from chalicelib.embedded.dispatcher import Policy
    from chalicelib.embedded.engine import raise_file_limit, serve
    from chalicelib.embedded.folder import DataFolder

    current = settings()
    policy = Policy(
        send_deadline_s=current.send_timeout_s,
        lease_ms=current.lease_ms,
        retry_delays_s=current.retry_delays_s,
        retention_days=current.retention_days,
        max_in_flight=raise_file_limit(current.max_in_flight),
    )
    await serve(DataFolder(current.data_dir), policy, wall_clock, stopped)


def start_under_chalice_local() -> None:
    """Fire timers from within ``chalice local``; do nothing in any other process.

    ``chalice package`` and ``chalice deploy`` import app.py too, and must start nothing.
    """
    local = os.environ.get("AWS_CHALICE_CLI_MODE") and sys.argv[1:2] == ["local"]
    if not local or settings().engine == AWS:
        return
    threading.Thread(target=_dispatch, name="dispatcher", daemon=True).start()


def _dispatch() -> None:
    """Run the dispatcher; without it the server would only pretend, so its end is the server's."""
    try:
        asyncio.run(serve_embedded(asyncio.Event()))
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr, flush=True)
    except Exception:
        log.exception("the dispatcher ended")
    os.kill(os.getpid(), signal.SIGTERM)
