"""The process of the pump, which the supervisor starts as ``python -m local.pump``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from chalicelib import bootstrap
from chalicelib.domain.errors import StartupError
from local.firing import pump_timers
from local.parent import exit_with


def main() -> int:
    """Fire timers of the emulator until SIGTERM; return the exit code (``sysexits.h``)."""
    exit_with(int(sys.argv[1]))
    logging.basicConfig(format="%(asctime)s pump %(levelname)s %(message)s")
    # Ctrl-C signals every process of the terminal. The supervisor stops this one after the API.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    try:
        pump_timers(bootstrap.service(), stopped)
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return os.EX_CONFIG
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
