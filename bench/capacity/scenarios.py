"""The scenarios that ``python -m bench.capacity`` simulates, and what would carry each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.capacity.limits import DEFAULTS, LIMITS
from bench.capacity.simulation import Load, Met, Result, simulate
from chalicelib.settings.table import LAMBDA_SEND_TIMEOUT_S

SCENARIOS: Mapping[str, Load] = {
    "10,000 near timers set a second for a minute": Load(
        creates_per_s=10_000, creates_s=60, delay_s=60, run_s=900
    ),
    "10,000 far timers set a second for a minute": Load(
        creates_per_s=10_000, creates_s=60, far=True, run_s=60
    ),
    "100,000 timers due in one second": Load(due_at_once=100_000, run_s=300),
    "100,000 timers due in one second, receivers hang": Load(
        due_at_once=100_000, receiver_s=LAMBDA_SEND_TIMEOUT_S, run_s=900
    ),
    "500 near timers set a second for a minute": Load(
        creates_per_s=500, creates_s=60, delay_s=60, run_s=600
    ),
}

MAX_RAISES = 40
"""No scenario needs as many."""


def describe(load: Load) -> dict[str, Any]:
    """Simulate ``load`` and return what happened, as JSON takes it."""
    result = simulate(load)
    return {
        "simulated": True,
        "load": {
            "creates_per_s": load.creates_per_s,
            "creates_s": load.creates_s,
            "due_at_once": load.due_at_once,
            "far": load.far,
            "receiver_s": load.receiver_s,
        },
        "first_limit": _limit_met(result.met[0]) if result.met else None,
        "limits_met": [_limit_met(met) for met in result.met],
        "in_all": totals(result),
        "timeline": timeline(result),
        "carried_by": carried_by(load),
    }


def totals(result: Result) -> dict[str, float]:
    """Return the sums of a run, and when its last delivery ended (None: not in the run)."""
    seconds = result.seconds
    ends = [at + 1 for at, second in enumerate(seconds) if second.delivered]
    return {
        "created": sum(second.created for second in seconds),
        "refused": sum(second.refused for second in seconds),
        "unarmed": sum(second.unarmed for second in seconds),
        "delivered": sum(second.delivered for second in seconds),
        "waiting_at_the_end": seconds[-1].waiting,
        "most_batches_at_once": max(second.batches for second in seconds),
        "last_delivery_s": max(ends, default=0),
        "latest_start_s": result.latest_s,
    }


def timeline(result: Result) -> list[dict[str, int]]:
    """Return the state of a few seconds: at the start often, then at longer and longer gaps."""
    places = [0, 1, 4, 9, 29, 59, 119, 179, 299, 599, 899]
    return [
        {
            "s": place + 1,
            "created": second.created,
            "refused": second.refused,
            "delivered": second.delivered,
            "waiting": second.waiting,
            "batches": second.batches,
        }
        for place, second in enumerate(result.seconds)
        if place in places
    ]


def carried_by(load: Load) -> dict[str, Any]:
    """Return the limits with which nothing of ``load`` is refused or waits.

    The first movable limit that is met is doubled until none is met. Limits that nobody can move
    are named in ``stays``.
    """
    limits = dict(DEFAULTS)
    for _ in range(MAX_RAISES):
        met = simulate(load, limits).met
        movable = [each.limit for each in met if LIMITS[each.limit].movable]
        if not movable:
            break
        limits[movable[0]] *= 2
        for rate, burst in (("stage_rate", "stage_burst"), ("gateway_rate", "gateway_burst")):
            if movable[0] == rate:
                limits[burst] *= 2
    raised = {name: value for name, value in limits.items() if value != DEFAULTS[name]}
    return {
        "raised": {
            name: {"to": value, "unit": LIMITS[name].unit, "moved_by": LIMITS[name].moved_by}
            for name, value in raised.items()
        },
        "stays": [_limit_met(each) for each in met if not LIMITS[each.limit].movable],
        "then": totals(simulate(load, limits)),
    }


def _limit_met(met: Met) -> dict[str, Any]:
    limit = LIMITS[met.limit]
    return {
        "limit": met.limit,
        "service": limit.service,
        "quota": limit.quota,
        "value": limit.value,
        "unit": limit.unit,
        "asked": met.asked,
        "at_s": met.at_s,
        "moved_by": limit.moved_by,
    }
