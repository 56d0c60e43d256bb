"""The process of the API on granian, which the supervisor starts as ``python -m local.server``."""

from __future__ import annotations

import os
import signal
import sys

from granian.constants import HTTPModes, Interfaces
from granian.server import Server

from chalicelib.embedded import open_files
from chalicelib.settings import load
from local.parent import PARENT, exit_with

MAX_CONNECTIONS = 16_384
"""Open connections of one worker. An idle one takes no thread; further ones wait in the backlog."""


def main() -> None:
    """Serve until SIGTERM."""
    # Ctrl-C signals every process of the terminal. It would end granian's workers, and granian
    # would restart them. SIGINT cannot be ignored, because granian sets its own handlers, here and
    # in its workers. So it is blocked, before any thread starts: threads inherit the block.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    exit_with(int(sys.argv[1]))
    open_files.raise_limit(MAX_CONNECTIONS)
    settings = load()
    os.environ[PARENT] = str(os.getpid())
    Server(
        "local.worker:application",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        # Not HTTP/2, which anybody may speak otherwise, and whose resets hung a worker.
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        backpressure=MAX_CONNECTIONS,
        respawn_failed_workers=True,
        workers_kill_timeout=5,
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
