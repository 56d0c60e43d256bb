"""A child process watches its parent, and ends when the parent does.

It polls, because only Linux can signal the end of a parent, and a parent that is killed (SIGKILL)
cannot stop its children.
"""

from __future__ import annotations

import os
import threading
import time

PARENT = "WEBHOOK_TIMERS_PARENT_PID"
"""The environment variable with the parent's id, for a process that takes no arguments."""

POLL_S = 0.2


def exit_with(parent: int) -> None:
    """End this process within ``POLL_S`` of the end of ``parent``, the process that started it."""
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    # The system gives an orphan another parent.
    while os.getppid() == parent:
        time.sleep(POLL_S)
    # Not sys.exit, which would end only this thread.
    os._exit(1)
