"""Very many pending timers, by count: schedules, storage, and what a sweep can wake in a minute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bench.capacity.limits import DEFAULTS
from chalicelib.aws.engine import SWEEP_BUDGET_MS
from chalicelib.service.sweep import MAX_THREADS

CALL_S = 0.005
"""Assumed: how long one call to DynamoDB or SQS takes from a Lambda."""

CALLS_PER_WAKE = 1 + 1 / 10 + 1 / 100
"""A mark for each timer, a SendMessageBatch for ten, a query for a hundred."""

DAY_S = 86_400
SWEEP_S = 60
"""Seconds between two sweeps."""

ROW_BYTES = 1_024 + 120 + 200
"""A row of 1 KB, its entry in the index, and 100 bytes that DynamoDB adds for each of the two."""

GB_MONTH = {"storage": 0.25, "recovery": 0.20}
"""US dollars per GB and month."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What so many pending timers mean, if they are due evenly over ``days``.

    ``per_s`` are due a second. ``unarmed`` have no schedule, so sweeps wake ``unarmed_per_s`` of
    them a second, of the ``sweeps_per_s`` that they can wake. ``behind`` is how many timers the
    sweeps are behind at the end of the simulated hour. ``fill_days`` is how long it takes to set
    the timers at the rate of API Gateway's stage.
    """

    timers: int
    days: int
    per_s: float
    armed: int
    unarmed: int
    unarmed_per_s: float
    sweeps_per_s: float
    behind: int
    storage_gb: float
    storage_dollars_a_month: float
    fill_days: float


def sweeps_per_s() -> float:
    """Return how many timers a second the sweeps can wake, within their time budget."""
    return MAX_THREADS / (CALL_S * CALLS_PER_WAKE) * SWEEP_BUDGET_MS / 1000 / SWEEP_S


def behind_after(minutes: int, unarmed_per_s: float, able_per_s: float) -> int:
    """Return how many timers wait for a sweep after ``minutes`` sweeps, one a minute."""
    waiting = 0
    for _ in range(minutes):
        waiting += math.floor(unarmed_per_s * SWEEP_S)
        waiting -= min(waiting, math.floor(able_per_s * SWEEP_S))
    return waiting


def count(timers: int, days: int, limits: Mapping[str, float] = DEFAULTS) -> Pending:
    """Return what ``timers`` pending timers mean that are due evenly over ``days``."""
    per_s = timers / (days * DAY_S)
    armed = min(timers, int(limits["schedules"]))
    unarmed_per_s = per_s * (timers - armed) / timers
    gigabytes = timers * ROW_BYTES / 1_000_000_000
    return Pending(
        timers=timers,
        days=days,
        per_s=round(per_s, 1),
        armed=armed,
        unarmed=timers - armed,
        unarmed_per_s=round(unarmed_per_s, 1),
        sweeps_per_s=round(sweeps_per_s(), 1),
        behind=behind_after(60, unarmed_per_s, sweeps_per_s()),
        storage_gb=round(gigabytes, 1),
        storage_dollars_a_month=round(gigabytes * sum(GB_MONTH.values()), 2),
        fill_days=round(timers / limits["stage_rate"] / DAY_S, 1),
    )
