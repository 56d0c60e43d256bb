"""The rate at which each limit is met, by count: its value divided by what one timer uses of it."""

from __future__ import annotations

from collections.abc import Mapping

from bench.capacity.limits import DEFAULTS
from chalicelib.aws.dynamodb.rows import SHARDS
from chalicelib.functions import BATCH_SIZE
from infra.cost import API_S, BATCH_WAIT_S, BUSY_ID_WRITES, RESPONSE_S
from infra.work import FAR_TIMER, NEAR_TIMER

SPREAD_S = 600
"""Schedules of one moment fire over ten minutes ahead of it."""


def rates(
    *, far: bool, receiver_s: float = RESPONSE_S, limits: Mapping[str, float] = DEFAULTS
) -> dict[str, float]:
    """Return the timers a second, set and delivered, at which each limit is met; lowest first."""
    work = FAR_TIMER if far else NEAR_TIMER
    batch_s = BATCH_WAIT_S + receiver_s
    found = {
        "stage_rate": limits["stage_rate"],
        "gateway_rate": limits["gateway_rate"],
        "lambda_concurrency": limits["lambda_concurrency"] / (API_S + batch_s / BATCH_SIZE),
        "poller_most": limits["poller_most"] * BATCH_SIZE / batch_s,
        "in_flight": limits["in_flight"] / batch_s,
        "table_warm": limits["table_warm"] / (work.table_writes + BUSY_ID_WRITES),
        "table_quota": limits["table_quota"] / (work.table_writes + BUSY_ID_WRITES),
        "index_warm": limits["index_warm"] / work.index_writes,
        "partition_writes": SHARDS * limits["partition_writes"] / work.index_writes,
    }
    if far:
        found |= {
            "create_schedule": limits["create_schedule"],
            "invocations": limits["invocations"],
        }
    return {name: round(rate, 1) for name, rate in sorted(found.items(), key=lambda at: at[1])}


def due_in_one_second(limits: Mapping[str, float] = DEFAULTS) -> int:
    """Return how many far timers may be due in the same second before schedules fire late."""
    return int(limits["invocations"] * SPREAD_S)
