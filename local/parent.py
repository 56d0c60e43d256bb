"""The watch of a child process on its parent: the child ends when the parent does.

It polls, because only Linux can signal the end of a parent, and a parent killed with SIGKILL can
tell its children nothing.
"""

from __future__ import annotations

import os
import threading
import time

PARENT = "WEBHOOK_TIMERS_PARENT_PID"
"""The variable that names the parent to a process that takes no arguments."""

POLL_S = 0.2


def exit_with(parent: int) -> None:
    """End this process within ``POLL_S`` of the end of ``parent``, the process that started it."""
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
