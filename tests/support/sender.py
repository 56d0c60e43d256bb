"""A sender that makes no calls, for tests of deliveries."""

from __future__ import annotations

import threading
from typing import NamedTuple

from chalicelib.domain.webhook import Call, Outcome
from tests.support.clock import ManualClock

OK = Outcome(status=204)


class SentCall(NamedTuple):
    """One webhook, and when it was sent by the tests' clock."""

    at: float
    call: Call


class FakeSender:
    """Returns the given outcomes, one a call, the last one for all further calls.

    ``sent`` holds the calls. Each takes ``takes_ms`` of the clock.
    """

    def __init__(self, clock: ManualClock, *outcomes: Outcome) -> None:
        self._clock = clock
        self._outcomes = list(outcomes or (OK,))
        self._lock = threading.Lock()
        self.sent: list[SentCall] = []
        self.takes_ms = 0.0

    def send(self, call: Call) -> Outcome:
        with self._lock:
            self.sent.append(SentCall(self._clock.now, call))
            self._clock.advance(self.takes_ms)
            return self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
