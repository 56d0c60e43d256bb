"""What all processes of one history share, and what is on when it begins."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.disks import Data
from tests.simulation.faults import Faults
from tests.simulation.hub import Hub
from tests.simulation.ledger import Ledger
from tests.simulation.receivers import Receivers
from tests.simulation.weather import Weather
from tests.support.clock import START

POLICIES_S = ((), (5.0,), (5.0, 60.0), (2.0, 5.0, 30.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """One world: its time, its chance, its weather; the ledger, the data, and the receivers."""

    hub: Hub
    chance: random.Random
    weather: Weather
    faults: Faults
    ledger: Ledger
    disk: Data
    receivers: Receivers
    retry_delays_s: Sequence[float]
    tokens: itertools.count[int]

    @classmethod
    def begin(cls, chance: random.Random, weather: Weather, disk: Data) -> Surroundings:
        """Return the beginning of a history."""
        hub = Hub(START + chance.random() * 1000)
        faults = Faults(hub, chance, weather)
        delays_s = chance.choice(POLICIES_S)
        hub.note("begins", weather)
        return cls(
            hub=hub,
            chance=chance,
            weather=weather,
            faults=faults,
            ledger=Ledger(hub, weather, attempts=len(delays_s) + 1),
            disk=disk,
            receivers=Receivers(chance, weather, faults),
            retry_delays_s=delays_s,
            tokens=itertools.count(1),
        )
