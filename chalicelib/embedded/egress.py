"""The budget of outgoing calls: how many may be in flight, and how many may start in a second.

A call over the budget is late. It never fails for that.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chalicelib.domain.fair_share import fair_share

log = logging.getLogger(__name__)

FAILURES_TO_SLOW_DOWN = 20
"""After this many failures in a row, a receiver is called at the rate of failing receivers."""

TENANT_SHARE = 0.5
"""The share of the places in flight that one of several tenants may take of what others leave."""

RECEIVER_SHARE = 0.5
"""The share of its tenant's places in flight that one receiver may take."""

MAX_REMEMBERED = 10_000
"""Receivers without a call in flight whose failures and rate are remembered."""

BURST_S = 1.0
"""A tenant or receiver that was idle may have the calls of this time at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """The limits of calls. Rates are calls a second; None is no limit.

    ``tenant_share`` is the share of the places in flight that one tenant may take of what other
    tenants leave. ``failing_receiver_per_s`` is the rate of a receiver whose calls all fail.
    """

    max_in_flight: int
    tenant_share: float = 1.0
    tenant_per_s: float | None = None
    receiver_per_s: float | None = None
    receiver_connections: int | None = None
    failing_receiver_per_s: float | None = None


@dataclass(slots=True)
class _Pace:
    """The rate of one tenant or receiver, by GCRA (see ``domain.rate``). Times are in seconds."""

    paid_until: float = 0.0

    def room(self, now: float, per_s: float | None, burst_s: float) -> float:
        """Return how many calls may start now."""
        if per_s is None:
            return math.inf
        ahead_s = max(self.paid_until - now, 0.0)
        # Rounding errors must not turn the last call of a burst away.
        return math.floor((max(burst_s, 1 / per_s) - ahead_s) * per_s + 1e-6)

    def wait_s(self, now: float, per_s: float | None, burst_s: float) -> float:
        """Return the time until a call may start."""
        if per_s is None:
            return 0.0
        return max(self.paid_until - now + 1 / per_s - max(burst_s, 1 / per_s), 0.0)

    def spend(self, now: float, per_s: float | None) -> None:
        """Count one call."""
        if per_s is not None:
            self.paid_until = max(self.paid_until, now) + 1 / per_s


@dataclass(slots=True)
class _Usage:
    """What one tenant or receiver uses now."""

    in_flight: int = 0
    failures: int = 0
    pace: _Pace = field(default_factory=_Pace)


_UNUSED = _Usage()


class Egress:
    """Counts calls by tenant and by receiver, and tells how many more may start."""

    def __init__(self, limits: EgressLimits, clock: Callable[[], float]) -> None:
        """``clock`` is a monotonic clock in seconds."""
        self._limits = limits
        self._clock = clock
        self._in_flight = 0
        self._tenants: dict[str, _Usage] = {}
        self._receivers: dict[str, _Usage] = {}
        self._pairs: Counter[tuple[str, str]] = Counter()

    @property
    def free(self) -> int:
        """How many calls may be in flight besides those that are."""
        return self._limits.max_in_flight - self._in_flight

    def tenant_room(self, tenant: str) -> int:
        """Return how many calls of ``tenant`` may start now."""
        limits, usage = self._limits, self._tenants.get(tenant, _UNUSED)
        allowed = fair_share(
            limits.max_in_flight, self._in_flight - usage.in_flight, limits.tenant_share
        )
        by_rate = usage.pace.room(self._clock(), limits.tenant_per_s, BURST_S)
        return max(int(min(allowed - usage.in_flight, self.free, by_rate)), 0)

    def tenant_wait_s(self, tenant: str) -> float:
        """Return how long the rate of ``tenant`` still forbids a call; 0 if it does not."""
        pace = self._tenants.get(tenant, _UNUSED).pace
        return pace.wait_s(self._clock(), self._limits.tenant_per_s, BURST_S)

    def receiver_room(self, tenant: str, receiver: str) -> int:
        """Return how many calls of ``tenant`` to ``receiver`` may start now."""
        limits, usage = self._limits, self._receivers.get(receiver, _UNUSED)
        of_tenant = self._tenants.get(tenant, _UNUSED).in_flight
        mine = self._pairs.get((tenant, receiver), 0)
        others = self._in_flight - of_tenant
        capacity = fair_share(limits.max_in_flight, others, limits.tenant_share)
        room: float = fair_share(capacity, of_tenant - mine, RECEIVER_SHARE) - mine
        if limits.receiver_connections is not None:
            room = min(room, limits.receiver_connections - usage.in_flight)
        per_s, burst_s = self._receiver_rate(usage)
        return max(int(min(room, usage.pace.room(self._clock(), per_s, burst_s))), 0)

    def receiver_wait_s(self, receiver: str) -> float:
        """Return how long the rate of ``receiver`` still forbids a call; 0 if it does not."""
        usage = self._receivers.get(receiver, _UNUSED)
        return usage.pace.wait_s(self._clock(), *self._receiver_rate(usage))

    def start(self, tenant: str, receiver: str) -> None:
        """Count a call that starts."""
        now = self._clock()
        usage = self._tenants.setdefault(tenant, _Usage())
        usage.in_flight += 1
        usage.pace.spend(now, self._limits.tenant_per_s)
        usage = self._receivers.setdefault(receiver, _Usage())
        usage.in_flight += 1
        usage.pace.spend(now, self._receiver_rate(usage)[0])
        self._pairs[tenant, receiver] += 1
        self._in_flight += 1

    def end(self, tenant: str, receiver: str, *, failed: bool | None) -> None:
        """Count a call that has ended. ``failed`` is None if the receiver was not asked."""
        self._in_flight -= 1
        self._pairs[tenant, receiver] -= 1
        if not self._pairs[tenant, receiver]:
            del self._pairs[tenant, receiver]
        usage = self._tenants[tenant]
        usage.in_flight -= 1
        self._forget(self._tenants, tenant)
        usage = self._receivers[receiver]
        usage.in_flight -= 1
        if failed is not None:
            self._judge(receiver, usage, failed=failed)
        self._forget(self._receivers, receiver)

    def _judge(self, receiver: str, usage: _Usage, *, failed: bool) -> None:
        """Slow a receiver down whose calls all fail, until one succeeds."""
        per_s = self._limits.failing_receiver_per_s
        if per_s is None:
            return
        before = usage.failures
        usage.failures = before + 1 if failed else 0
        if usage.failures == FAILURES_TO_SLOW_DOWN:
            log.warning("every call to %s fails: at most %g calls a second", receiver, per_s)
        elif before >= FAILURES_TO_SLOW_DOWN and not failed:
            log.warning("a call to %s has succeeded: calls at the full rate again", receiver)

    def _receiver_rate(self, usage: _Usage) -> tuple[float | None, float]:
        """Return the calls a second to a receiver, and its burst in seconds."""
        if usage.failures >= FAILURES_TO_SLOW_DOWN:
            return self._limits.failing_receiver_per_s, 0.0
        return self._limits.receiver_per_s, BURST_S

    def _forget(self, usages: dict[str, _Usage], name: str) -> None:
        """Drop a tenant or receiver that is as good as new, or too many of the others."""
        usage = usages[name]
        if usage.in_flight:
            return
        if not usage.failures and usage.pace.paid_until <= self._clock():
            del usages[name]
        elif len(usages) > MAX_REMEMBERED + self._in_flight:
            del usages[next(name for name, usage in usages.items() if not usage.in_flight)]
