"""The receivers of webhooks, and the sender that calls them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from chalicelib.domain.webhook import Call, Outcome
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.fault_profile import FaultProfile
from tests.simulation.oracle import Oracle
from tests.simulation.promises import progress_of
from tests.simulation.virtual_time import VirtualTime

DEADLINE_S = 10.0

ALWAYS_500_SHARE = 0.1
ALWAYS_410_SHARE = 0.05

MAX_REPEATS = 2
AGAINS_S = (None, None, "1", "20")
"""What a receiver that responds 2xx asks for. Only repeatable timers are called again."""

RETRY_AFTERS_S = (None, None, 1.0, 30.0, 200.0)


class Receivers:
    """All receivers. Some always fail, some are gone for good, and the others follow the faults."""

    def __init__(self, rng: random.Random, profile: FaultProfile, faults: FaultInjector) -> None:
        self._rng = rng
        self._profile = profile
        self._faults = faults
        self._draws: dict[str, float] = {}
        """By the receiver's URL: a draw that decides which kind of receiver it is."""
        self._repeats: Counter[str] = Counter()

    def take(self, url: str) -> tuple[bool, Outcome]:
        """Return whether a webhook arrives, and the outcome that its sender will see."""
        receiver = url.rpartition("/")[0]
        draw = self._draws.setdefault(receiver, self._rng.random())
        if draw < ALWAYS_500_SHARE:
            return True, Outcome(status=500, retry_after=self._rng.choice(RETRY_AFTERS_S))
        if draw < ALWAYS_500_SHARE + ALWAYS_410_SHARE:
            return True, Outcome(status=410)
        if self._faults.occurs(self._profile.no_connection, "no connection"):
            return False, Outcome(error="connection refused")
        if self._faults.occurs(self._profile.no_response, "no response"):
            return True, Outcome(error="timed out after 10 s")
        if self._faults.occurs(self._profile.server_error, "server error"):
            return True, Outcome(status=503, retry_after=self._rng.choice(RETRY_AFTERS_S))
        return True, Outcome(status=204, again=self._again(receiver))

    def _again(self, receiver: str) -> str | None:
        if self._repeats[receiver] == MAX_REPEATS:
            return None
        self._repeats[receiver] += 1
        return self._rng.choice(AGAINS_S)


class SimulatedSender:
    """The ``Sender`` of one process of the AWS engine. It tells the oracle all it does."""

    def __init__(
        self,
        time: VirtualTime,
        faults: FaultInjector,
        oracle: Oracle,
        receivers: Receivers,
        clock: Callable[[], float],
    ) -> None:
        self._time = time
        self._faults = faults
        self._oracle = oracle
        self._receivers = receivers
        self._clock = clock

    def send(self, call: Call) -> Outcome:
        """Call the receiver. A process that stalls meanwhile exceeds any deadline."""
        progress = progress_of(self._time.task)
        _, sent = self._oracle.webhook_starts(call, self._clock(), progress)
        self._time.note("sends", call.url)
        self._time.pause(self._faults.delay())
        self._faults.may_kill("sends", call.url)
        arrived, outcome = self._receivers.take(call.url)
        if arrived:
            self._oracle.webhook_received()
        self._time.note("has sent", call.url, outcome)
        self._faults.may_kill("sends", call.url)
        no_response = arrived and outcome.error is not None
        deadline_ms = call.deadline_s(DEADLINE_S) * 1000
        self._time.pause(deadline_ms if no_response else self._faults.delay())
        sent.outcome = outcome
        return outcome
