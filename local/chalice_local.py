"""Firing of timers under ``chalice local``, which itself only serves the REST routes.

Otherwise the offline server is a group of processes. Here everything runs in the process that
Chalice started. If firing ends, the server ends too: it would accept timers that never fire.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from chalicelib.bootstrap import Service
from chalicelib.domain.errors import StartupError
from local.firing import firing_of

log = logging.getLogger(__name__)


def end_server() -> None:
    """End this process with the signal that ``chalice local`` expects."""
    os.kill(os.getpid(), signal.SIGTERM)


def start(
    service: Service,
    arguments: Sequence[str] | None = None,
    *,
    fire: Callable[[], None] | None = None,
    end: Callable[[], None] = end_server,
) -> threading.Thread:
    """Fire timers in the returned thread. If that is impossible, print why and ``end`` the server.

    ``arguments`` is the command line of ``chalice local``. ``fire`` returns when firing ends.
    """
    firing = firing_of(service)

    def check() -> None:
        service.settings.require_loopback_without_keys(
            listening_host(sys.argv if arguments is None else arguments)
        )
        # Before the first request is served: requests must not reach AWS either.
        firing.prepare()

    _or_end(check, end)
    thread = threading.Thread(
        target=_fire_or_end, args=(fire or firing.fire, end), name="firing", daemon=True
    )
    thread.start()
    return thread


def listening_host(arguments: Sequence[str]) -> str:
    """Return the address in the last ``--host`` of ``chalice local``, or its default."""
    words = iter(arguments)
    host = "127.0.0.1"
    for word in words:
        if word == "--host":
            host = next(words, host)
        elif word.startswith("--host="):
            host = word.partition("=")[2]
    return host


def _fire_or_end(fire: Callable[[], None], end: Callable[[], None]) -> None:
    _or_end(fire, end)
    end()


def _or_end(work: Callable[[], None], end: Callable[[], None]) -> None:
    """Do ``work``. If it fails, print or log why and end the server."""
    try:
        work()
        return
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr, flush=True)
    except Exception:
        log.exception("timers do not fire any more")
    end()
