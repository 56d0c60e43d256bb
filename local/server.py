"""The API behind granian. ``python -m local.server`` is started by the supervisor."""

from __future__ import annotations

import os
import signal
import sys

from granian.constants import Interfaces
from granian.server import Server

from chalicelib.settings import load
from local.parent import PARENT, exit_with

THREADS = 32
"""Requests one worker answers at a time; most of them wait for the disk."""


def main() -> None:
    """Serve until SIGTERM."""
    # Ctrl-C reaches the whole group, and granian starts a worker again that ended by it. Blocked,
    # not ignored: granian sets handlers of its own, here and in its workers. Before any thread is
    # started, which would take the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    exit_with(int(sys.argv[1]))
    settings = load()
    os.environ[PARENT] = str(os.getpid())
    Server(
        "local.worker:gateway",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=THREADS,
        backlog=1024,
        backpressure=512,
        respawn_failed_workers=True,
        workers_kill_timeout=5,
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
