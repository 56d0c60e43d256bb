"""The watchdog: it asks the API for a response, and tells when none comes any more.

It asks for ``GET /``, which needs neither the dispatcher nor a thread of a worker: what waits for
the dispatcher has timeouts of its own, and a new API would wait for it as well.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

INTERVAL_S = 1.0
"""The time between two checks."""

CHECK_TIMEOUT_S = 5.0
"""How long a check waits. A machine under load responds to this request within a second."""

MAX_SILENT = 3
"""So many checks of the last ``checks_of(workers)`` without a response mean that a worker hangs."""

STARTING_CHECKS = 15
"""Checks without a response that do not count after a restart: at least as many seconds."""


def checks_of(workers: int) -> int:
    """Return how many checks are looked at: each reaches one of ``workers`` workers at random."""
    return MAX_SILENT * workers


class Watchdog:
    """Checks the API on a thread of its own, from ``start`` on.

    A response of any status counts as one: an API that reports its own trouble is not restarted.
    An API that was started again has time for that: ``STARTING_CHECKS``.
    """

    def __init__(
        self,
        responds: Callable[[], bool],
        workers: int,
        *,
        pause: Callable[[float], None],
    ) -> None:
        """``responds`` makes one check; ``pause`` waits for a number of seconds."""
        self._responds = responds
        self._pause = pause
        self._lock = threading.Lock()
        # Whether there was a response, for each of the latest checks.
        self._checks: deque[bool] = deque(maxlen=checks_of(workers))
        # So many checks may still find an API that is starting.
        self._starting = 0

    def start(self) -> None:
        """Start the thread. The API has had time to start before."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @property
    def api_hangs(self) -> bool:
        """Whether the API must be restarted."""
        with self._lock:
            return self._checks.count(False) >= MAX_SILENT

    def forget(self) -> None:
        """Forget the checks of an API that was restarted since."""
        with self._lock:
            self._checks.clear()
            self._starting = STARTING_CHECKS

    def check(self) -> None:
        """Make one check."""
        responded = self._responds()
        with self._lock:
            if responded:
                self._starting = 0
            if self._starting:
                self._starting -= 1
            else:
                self._checks.append(responded)

    def _run(self) -> None:
        while True:
            self._pause(INTERVAL_S)
            self.check()
