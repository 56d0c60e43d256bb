"""The health of a process: one check of its store serves everybody who asks within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from chalicelib.domain.errors import Unavailable

HEALTH_TTL_S = 1.0
"""How long a result is used. Anybody may ask for it, and a check is a durable write."""


class HealthCheck:
    """Checks the store, at most once in ``HEALTH_TTL_S``. Threads may share it."""

    def __init__(
        self, check: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``check`` raises ``Unavailable`` if the store is not ready. ``clock`` is in seconds."""
        self._check = check
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_at: float | None = None
        self._failure: Unavailable | None = None

    def check(self) -> None:
        """Return if the store was ready when it was last checked, else raise ``Unavailable``."""
        # The lock is held during the check, so that all who ask meanwhile share its result.
        with self._lock:
            if self._checked_at is None or self._clock() - self._checked_at >= HEALTH_TTL_S:
                self._failure = self._result()
                self._checked_at = self._clock()
            failure = self._failure
        if failure is not None:
            # A new one: threads that raise one exception would write into its traceback.
            raise Unavailable(failure.detail, failure.retry_after)

    def _result(self) -> Unavailable | None:
        try:
            self._check()
        except Unavailable as error:
            return error
        return None
