"""The rate at which each tenant may set timers, by GCRA (the generic cell rate algorithm).

GCRA keeps one number per tenant: the theoretical arrival time (TAT) of the next timer at a steady
rate. Here it is called ``paid_until``. A tenant that was idle may set the timers of one second at
once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chalicelib.domain.errors import RateLimited

BURST_MS = 1_000.0
"""How far the theoretical arrival time may be ahead of now, in ms."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The number of timers a second that each tenant may set. Times are epoch milliseconds."""

    per_s: float

    def cost_ms(self, count: int) -> float:
        """Return how far ``count`` timers move the theoretical arrival time."""
        return count * 1000 / self.per_s

    def horizon(self, now: float) -> float:
        """Return the latest theoretical arrival time that is possible without a clock change."""
        # Below one timer a second, a single timer costs more than the burst.
        return now + max(BURST_MS, self.cost_ms(1))

    def max_ahead_ms(self, count: int) -> float:
        """Return how far ahead the theoretical arrival time may be to admit ``count`` timers."""
        # At least 0: an idle tenant may always set a timer, even if it costs more than the burst.
        return max(BURST_MS - self.cost_ms(count), 0.0)

    def admit(self, paid_until: float, now: float, count: int = 1) -> float:
        """Return the theoretical arrival time after ``count`` more timers.

        Raises ``RateLimited``.
        """
        # The clock was put back. Waiting for the old time could lock the tenant out for hours.
        if paid_until > self.horizon(now):
            paid_until = now
        wait_ms = paid_until - now - self.max_ahead_ms(count)
        if wait_ms > 0:
            raise RateLimited(
                f"At most {self.per_s:g} timers a second may be set.",
                max(1, math.ceil(wait_ms / 1000)),
            )
        return max(paid_until, now) + self.cost_ms(count)


class Limiter:
    """Limits the rate of each tenant, in the one process that creates all timers."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._paid_until: dict[str, float] = {}

    def admit(self, tenant: str, now: float) -> None:
        """Count one timer at ``now`` (epoch ms), or raise ``RateLimited`` and do not count it."""
        if self._rate is not None:
            paid_until = self._paid_until.get(tenant, 0.0)
            self._paid_until[tenant] = self._rate.admit(paid_until, now)
