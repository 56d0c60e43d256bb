"""Waiting until other threads and processes have done something."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 15.0
"""How long a test waits for what must happen: machines that run tests can be very slow."""


def eventually(condition: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Return the first true result of ``condition``, or its last one when patience ends."""
    deadline = time.monotonic() + patience_s
    while True:
        result = condition()
        if result or time.monotonic() >= deadline:
            return result
        time.sleep(0.02)
