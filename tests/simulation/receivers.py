"""Receivers of webhooks, and the sender that calls them."""

from __future__ import annotations

import random
from collections.abc import Callable

from chalicelib.domain.webhook import Call, Outcome
from tests.simulation.faults import Faults
from tests.simulation.hub import Hub
from tests.simulation.ledger import Ledger, doing
from tests.simulation.weather import Weather

DEADLINE_S = 10.0

BROKEN = 0.1
GONE = 0.05
"""The parts of receivers that never take a webhook, and that say that they never will."""

WISHES_S = (None, None, 1.0, 30.0, 200.0)
"""What receivers write into Retry-After."""


class Receivers:
    """All receivers: how each answers, what it took."""

    def __init__(self, chance: random.Random, weather: Weather, faults: Faults) -> None:
        self._chance = chance
        self._weather = weather
        self._faults = faults
        self._natures: dict[str, float] = {}

    def take(self, url: str) -> tuple[bool, Outcome]:
        """Return whether a webhook arrives, and what its sender will see."""
        receiver = url.rpartition("/")[0]
        nature = self._natures.setdefault(receiver, self._chance.random())
        if nature < BROKEN:
            return True, Outcome(status=500, retry_after=self._chance.choice(WISHES_S))
        if nature < BROKEN + GONE:
            return True, Outcome(status=410)
        if self._faults.happens(self._weather.no_connection, "no connection"):
            return False, Outcome(error="connection refused")
        if self._faults.happens(self._weather.no_answer, "no answer"):
            return True, Outcome(error="timed out after 10 s")
        if self._faults.happens(self._weather.server_error, "server error"):
            return True, Outcome(status=503, retry_after=self._chance.choice(WISHES_S))
        return True, Outcome(status=204)


class SimulatedSender:
    """A ``Sender`` of one process. Nothing keeps from the ledger what it does."""

    def __init__(
        self,
        hub: Hub,
        faults: Faults,
        ledger: Ledger,
        receivers: Receivers,
        clock: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._faults = faults
        self._ledger = ledger
        self._receivers = receivers
        self._clock = clock

    def send(self, call: Call) -> Outcome:
        """Call the receiver; a process that stalls meanwhile exceeds any deadline."""
        promise, sent = self._ledger.starts(call, self._clock(), doing(self._hub.task))
        self._hub.note("sends", call.url)
        self._hub.pause(self._faults.delay())
        self._faults.may_kill("sends", call.url)
        arrived, outcome = self._receivers.take(call.url)
        if arrived:
            self._ledger.received(promise, sent)
        self._hub.note("has sent", call.url, outcome)
        self._faults.may_kill("sends", call.url)
        silent = arrived and outcome.error is not None
        longest_ms = call.deadline_s(DEADLINE_S) * 1000
        self._hub.pause(longest_ms if silent else self._faults.delay())
        sent.outcome = outcome
        return outcome
