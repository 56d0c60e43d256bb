"""The rate at which each tenant may cause calls, by GCRA (the generic cell rate algorithm).

A timer counts when it is set, and again whenever its client moves, fires or replays it: each of
them costs a write, and brings a call that was not to come then.

GCRA keeps one number per tenant: the theoretical arrival time (TAT) of the next timer at a steady
rate. Here it is called ``paid_until``. A tenant that was idle may use the rate of one second at
once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chalicelib.domain.errors import RateLimited

BURST_MS = 1_000.0
"""How far the theoretical arrival time may be ahead of now, in ms."""

MAX_CLOCK_SKEW_MS = 60_000.0
"""How far two readings of the time may differ without a clock change, in ms.

The threads of one machine differ by milliseconds, and the machines of one service by less than a
second, so a minute leaves room for a machine whose clock is not set. A tenant may have to wait this
long after a clock was put back.
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """The number of timers a second that each tenant may set or change.

    Times are epoch milliseconds.
    """

    per_s: float

    def cost_ms(self, count: int) -> float:
        """Return how far ``count`` timers move the theoretical arrival time."""
        return count * 1000 / self.per_s

    def horizon(self, now: float) -> float:
        """Return the latest theoretical arrival time that is possible without a clock change."""
        # Below one timer a second, a single timer costs more than the burst.
        return now + max(BURST_MS, self.cost_ms(1)) + MAX_CLOCK_SKEW_MS

    def max_ahead_ms(self, count: int) -> float:
        """Return how far ahead the theoretical arrival time may be to admit ``count`` timers."""
        # At least 0: an idle tenant may always set a timer, even if it costs more than the burst.
        return max(BURST_MS - self.cost_ms(count), 0.0)

    def steady(self, paid_until: float, latest: float, now: float) -> float:
        """Return the time that counts: a clock slightly behind ``latest`` has not advanced.

        ``latest`` is the latest time at which a timer was counted.
        """
        return now if paid_until > self.horizon(now) else max(latest, now)

    def admit(self, paid_until: float, now: float, count: int = 1, *, latest: float = 0.0) -> float:
        """Return the theoretical arrival time after ``count`` more timers.

        Raises ``RateLimited``.
        """
        steady = self.steady(paid_until, latest, now)
        # The clock was put back. Waiting for the old time could lock the tenant out for hours. A
        # smaller difference must not start afresh: with two clocks, every call would.
        if paid_until > self.horizon(now):
            paid_until = now
        admitted_at = paid_until - self.max_ahead_ms(count)
        if steady < admitted_at:
            raise self.refusal(max(1, math.ceil((admitted_at - now) / 1000)))
        return max(paid_until, steady) + self.cost_ms(count)

    def refusal(self, retry_after: int = 1) -> RateLimited:
        """Return the error for a timer too many. ``retry_after`` is in seconds."""
        return RateLimited(
            f"At most {self.per_s:g} timers a second may be set, moved, fired or replayed.",
            retry_after,
        )


@dataclass(frozen=True, slots=True)
class _Usage:
    """What one tenant has used: its theoretical arrival time and its ``latest`` clock reading."""

    paid_until: float = 0.0
    latest: float = 0.0


_UNUSED = _Usage()


class Limiter:
    """Limits the rate of each tenant, in the one process that writes all timers."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._usage: dict[str, _Usage] = {}

    def admit(self, tenant: str, now: float) -> None:
        """Count one timer at ``now`` (epoch ms), or raise ``RateLimited`` and do not count it.

        The times are read by the threads of the API, so they need not be in order.
        """
        if self._rate is None:
            return
        used = self._usage.get(tenant, _UNUSED)
        self._usage[tenant] = _Usage(
            paid_until=self._rate.admit(used.paid_until, now, latest=used.latest),
            latest=self._rate.steady(used.paid_until, used.latest, now),
        )
