"""The environment of a run: the objects that all its processes share."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.fault_injector import FaultInjector
from tests.simulation.fault_profile import FaultProfile
from tests.simulation.oracle import Oracle
from tests.simulation.receivers import Receivers
from tests.simulation.storage import StoredTimers
from tests.simulation.virtual_time import VirtualTime
from tests.support.clock import START

RETRY_SCHEDULES_S = ((), (5.0,), (5.0, 60.0), (2.0, 5.0, 30.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Time, randomness, faults, stored timers and receivers of one run, and its oracle."""

    time: VirtualTime
    rng: random.Random
    profile: FaultProfile
    faults: FaultInjector
    oracle: Oracle
    stored: StoredTimers
    receivers: Receivers
    retry_delays_s: Sequence[float]
    tokens: itertools.count[int]

    @classmethod
    def create(cls, rng: random.Random, profile: FaultProfile, stored: StoredTimers) -> Environment:
        """Return the environment of a run that is about to start."""
        time = VirtualTime(START + rng.random() * 1000)
        faults = FaultInjector(time, rng, profile)
        delays_s = rng.choice(RETRY_SCHEDULES_S)
        time.note("starts", profile)
        oracle = Oracle(time, profile, max_attempts=len(delays_s) + 1)
        oracle.stored_rows = stored.rows
        return cls(
            time=time,
            rng=rng,
            profile=profile,
            faults=faults,
            oracle=oracle,
            stored=stored,
            receivers=Receivers(rng, profile, faults),
            retry_delays_s=delays_s,
            tokens=itertools.count(1),
        )
