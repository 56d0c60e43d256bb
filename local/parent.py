"""No child outlives its parent, even one killed with -9. Works where no signal tells of it."""

from __future__ import annotations

import os
import threading
import time

PARENT = "WEBHOOK_TIMERS_PARENT_PID"
POLL_S = 0.2


def exit_with(parent: int) -> None:
    """End this process soon after the process ``parent``, which must have started it."""
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
