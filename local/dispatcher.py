"""The process of the dispatcher, which the supervisor starts as ``python -m local.dispatcher``."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import uvloop

from chalicelib import bootstrap
from chalicelib.domain.errors import StartupError
from local.parent import exit_with


def main() -> int:
    """Fire timers of the data folder until SIGTERM; return the exit code (``sysexits.h``)."""
    exit_with(int(sys.argv[1]))
    logging.basicConfig(format="%(asctime)s dispatcher %(levelname)s %(message)s")
    # Ctrl-C signals every process of the terminal. The supervisor stops this one after the API.
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
    await bootstrap.service().embedded.run(stopped)


if __name__ == "__main__":
    sys.exit(main())
