"""The dispatcher's process. ``python -m local.dispatcher`` is started by the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import uvloop

from chalicelib.domain.errors import StartupError
from chalicelib.wiring import serve_embedded
from local.parent import exit_with


def main() -> int:
    """Fire timers until SIGTERM; return the exit code (``sysexits.h``)."""
    exit_with(int(sys.argv[1]))
    logging.basicConfig(format="%(asctime)s dispatcher %(levelname)s %(message)s")
    # Ctrl-C reaches the whole group; the supervisor decides when it is this process's turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        uvloop.run(_serve())
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return os.EX_CONFIG
    return os.EX_OK


async def _serve() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await serve_embedded(stopped)


if __name__ == "__main__":
    sys.exit(main())
