"""How many timers a tenant may set a second: GCRA, the leaky bucket that keeps one number.

That number is the moment at which everything set so far would have been set at an even pace. A
tenant that was quiet may set a second's worth at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chalicelib.domain.errors import RateLimited

BURST_MS = 1_000.0


@dataclass(frozen=True, slots=True)
class Rate:
    """So many timers a second, for each tenant. Times are epoch milliseconds."""

    per_s: float

    def cost_ms(self, count: int) -> float:
        """Return how far ``count`` timers move the moment."""
        return count * 1000 / self.per_s

    def horizon(self, now: float) -> float:
        """Return up to when a tenant can have paid; beyond it, some clock has been put back."""
        return now + max(BURST_MS, self.cost_ms(1))

    def room_ms(self, count: int) -> float:
        """Return how far ahead of now the moment may be for ``count`` timers to be let through."""
        return max(BURST_MS - self.cost_ms(count), 0.0)

    def admit(self, paid_until: float, now: float, count: int = 1) -> float:
        """Return the moment after ``count`` more timers. Raises ``RateLimited``."""
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
    """Holds tenants to a rate, for a process through which all their timers go."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._paid_until: dict[str, float] = {}

    def admit(self, tenant: str, now: float) -> None:
        """Count one timer. Raises ``RateLimited``, and then does not count it."""
        if self._rate is not None:
            paid_until = self._paid_until.get(tenant, 0.0)
            self._paid_until[tenant] = self._rate.admit(paid_until, now)
