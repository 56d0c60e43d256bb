"""One worker of the API, which ``local.server`` starts as ``python -m local.worker``.

Its arguments are the id of its parent and the descriptor of the socket that listens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial

import uvloop

from app import app
from chalicelib import bootstrap
from chalicelib.embedded import open_files
from chalicelib.settings import EMBEDDED
from local.application import Application
from local.connections import Connections
from local.gateway import Gateway
from local.http_connection import Connection, Timeouts
from local.listener import Acceptor
from local.parent import exit_with
from local.work import embedded_work, waiting_work

MAX_CONNECTIONS = 16_384
"""Open connections of one worker. A further one replaces the one that is idle for longest."""

STOP_GRACE_S = 3.0
"""How long requests in hand may take after SIGTERM."""


def main() -> None:
    """Serve until SIGTERM."""
    parent, descriptor = map(int, sys.argv[1:])
    exit_with(parent)
    logging.basicConfig(format="%(asctime)s api %(levelname)s %(message)s")
    finished = uvloop.run(_serve(socket.socket(fileno=descriptor)))
    # Python itself would wait for threads that still carry out a request.
    os._exit(os.EX_OK if finished else os.EX_TEMPFAIL)


async def _serve(listener: socket.socket) -> bool:
    """Serve until SIGTERM; return whether all requests were finished."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    connections = Connections(loop, open_files.raise_limit(MAX_CONNECTIONS))
    protocol = partial(Connection, _application(loop), connections, loop, Timeouts())
    acceptor = Acceptor(listener, loop, protocol)
    acceptor.start()
    await stopped.wait()
    acceptor.stop()
    return await connections.stop(STOP_GRACE_S)


def _application(loop: asyncio.AbstractEventLoop) -> Application:
    gateway, service = Gateway(app), bootstrap.service()
    if service.settings.engine != EMBEDDED or service.settings.test_clock:
        return Application(gateway, loop, work_of=waiting_work, is_ready=lambda: True)
    timers = service.embedded.timers
    timers.use_loop(loop)
    return Application(gateway, loop, work_of=embedded_work, is_ready=lambda: timers.is_ready)


if __name__ == "__main__":
    main()
