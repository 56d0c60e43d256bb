"""The rate at which each tenant may set timers, by GCRA (the generic cell rate algorithm).

GCRA keeps one number per tenant: the theoretical arrival time (TAT) of the next timer at a steady
rate. Here it is called ``paid_until``. A tenant that was quiet may set a second's worth at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chalicelib.domain.errors import RateLimited

BURST_MS = 1_000.0
"""How far the theoretical arrival time may be ahead of now."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many timers a second, for each tenant. Times are epoch milliseconds."""

    per_s: float

    def cost_ms(self, count: int) -> float:
        """Return how far ``count`` timers move the theoretical arrival time."""
        return count * 1000 / self.per_s

    def horizon(self, now: float) -> float:
        """Return the latest possible theoretical arrival time. Beyond it, a clock was put back."""
        return now + max(BURST_MS, self.cost_ms(1))

    def room_ms(self, count: int) -> float:
        """Return how far ahead the theoretical arrival time may be to admit ``count`` timers."""
        return max(BURST_MS - self.cost_ms(count), 0.0)

    def admit(self, paid_until: float, now: float, count: int = 1) -> float:
        """Return the theoretical arrival time after ``count`` more. Raises ``RateLimited``."""
        if paid_until > self.horizon(now):
            paid_until = now
        wait_ms = paid_until - now - self.room_ms(count)
        if wait_ms > 0:
            raise RateLimited(
                f"At most {self.per_s:g} timers a second may be set.",
                max(1, math.ceil(wait_ms / 1000)),
            )
        return max(paid_until, now) + self.cost_ms(count)


class Limiter:
    """Limits the rate of each tenant, in a process through which all its timers go."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._paid_until: dict[str, float] = {}

    def admit(self, tenant: str, now: float) -> None:
        """Count one timer. Raises ``RateLimited``, and then does not count it."""
        if self._rate is not None:
            paid_until = self._paid_until.get(tenant, 0.0)
            self._paid_until[tenant] = self._rate.admit(paid_until, now)
