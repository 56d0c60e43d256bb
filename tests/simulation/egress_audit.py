"""The budget of calls of one dispatcher process, counted once more, from its calls alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chalicelib.domain.fair_share import fair_share
from chalicelib.domain.target import receiver_of
from chalicelib.domain.webhook import Call
from chalicelib.embedded.egress import BURST_S, EgressLimits
from tests.simulation.environment import Environment
from tests.simulation.invariants.egress import calls_stay_within

COMMIT_S = 1.0
"""Longer than a claim takes to be committed."""

NOTICE_PATH = "/failed/"


def egress_limits(env: Environment) -> EgressLimits:
    """Return the limits of a run: none in a run without faults, whose timers must not be late.

    None in half of the others either, so that the limits hide no other fault.
    """
    draw = env.rng.choice
    if env.profile.fault_free or draw((True, False)):
        return EgressLimits(max_in_flight=100 if env.profile.fault_free else draw((1, 3, 100)))
    return EgressLimits(
        max_in_flight=draw((3, 8, 8, 100)),
        tenant_share=draw((0.5, 1.0)),
        tenant_per_s=draw((None, 1.0, 10.0)),
        receiver_per_s=draw((None, 0.5, 5.0)),
        receiver_connections=draw((None, 1, 2)),
        failing_receiver_per_s=draw((None, 0.2)),
    )


class EgressAudit:
    """Counts webhooks in flight and started, and checks them against the limits.

    Failure notices do not count: they are calls of a timer that has its place.
    """

    def __init__(self, limits: EgressLimits, now: Callable[[], float]) -> None:
        """``now`` is in ms."""
        self._limits = limits
        self._now = now
        self._in_flight: Counter[str] = Counter()
        self._started: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def call(self, call: Call) -> Iterator[None]:
        """Count one call while it lasts."""
        if NOTICE_PATH in call.url:
            yield
            return
        receiver, tenant = receiver_of(call.url), call.tenant
        names = ("all calls", f"tenant {tenant}", f"receiver {receiver}")
        self._in_flight.update(names)
        try:
            self._check(*names)
            yield
        finally:
            self._in_flight.subtract(names)

    def _check(self, everything: str, tenant: str, receiver: str) -> None:
        limits = self._limits
        of_tenant = fair_share(limits.max_in_flight, 0, limits.tenant_share)
        calls_stay_within(everything, self._in_flight[everything], limits.max_in_flight)
        calls_stay_within(tenant, self._in_flight[tenant], of_tenant)
        connections = limits.receiver_connections or math.inf
        calls_stay_within(receiver, self._in_flight[receiver], connections)
        self._check_rate(tenant, limits.tenant_per_s)
        self._check_rate(receiver, limits.receiver_per_s)

    def _check_rate(self, name: str, per_s: float | None) -> None:
        if per_s is None:
            return
        started, now = self._started[name], self._now()
        started.append(now)
        # In each span that ends now: the calls of its length, one burst, and the calls of the time
        # between a claim, which is what the budget counts, and its call.
        for count, since in enumerate(reversed(started), start=1):
            allowed = (now - since) / 1000 * per_s + max(BURST_S * per_s, 1) + COMMIT_S * per_s
            calls_stay_within(f"{name} since {since}", count, allowed)
