"""The pump's process. ``python -m local.pump`` is started by the supervisor for the aws engine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from chalicelib.domain.errors import StartupError
from chalicelib.wiring import serve_emulator
from local.parent import exit_with


def main() -> int:
    """Fire the emulator's timers until SIGTERM; return the exit code (``sysexits.h``)."""
    exit_with(int(sys.argv[1]))
    logging.basicConfig(format="%(asctime)s pump %(levelname)s %(message)s")
    # Ctrl-C reaches the whole group; the supervisor decides when it is this process's turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    try:
        serve_emulator(stopped)
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return os.EX_CONFIG
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
