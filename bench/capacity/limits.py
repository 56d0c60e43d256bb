"""The limits of AWS that a timer meets, and the settings of ours that are lower: one table.

The values are AWS's defaults in a large Region, as published on the day they were looked up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra.package import MERGE_TEMPLATE

LOOKED_UP = "2026-11-27"

_AWS = "https://docs.aws.amazon.com/"
_GATEWAY = _AWS + "apigateway/latest/developerguide/limits.html"
_LAMBDA = _AWS + "lambda/latest/dg/gettingstarted-limits.html"
_SCALING = _AWS + "lambda/latest/dg/scaling-behavior.html"
_POLLERS = _AWS + "lambda/latest/dg/services-sqs-scaling.html"
_QUEUES = _AWS + "AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html"
_DYNAMODB = _AWS + "amazondynamodb/latest/developerguide/ServiceQuotas.html"
_WARM = _AWS + "amazondynamodb/latest/developerguide/warm-throughput.html"
_PARTITION = _AWS + "amazondynamodb/latest/developerguide/bp-partition-key-design.html"
_SCHEDULER = _AWS + "scheduler/latest/UserGuide/scheduler-quotas.html"
_OURS = "this repository"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit.

    ``quota`` is its name in Service Quotas, or "" if it has none there. ``moved_by`` says which
    setting or request raises it; a limit that is not ``movable`` stays as it is.
    ``younger`` is its value in a small or new Region, if it differs.
    """

    value: float
    unit: str
    service: str
    quota: str
    moved_by: str
    source: str
    movable: bool = True
    younger: float | None = None


def _stage(name: str) -> float:
    """Return a throttling setting of the stage ``prod`` in ``infra/package.json``."""
    merge = json.loads(MERGE_TEMPLATE.read_text(encoding="utf-8"))
    return float(merge["Mappings"]["Throttling"]["prod"][name])


LIMITS: Mapping[str, Limit] = MappingProxyType(
    {
        "stage_rate": Limit(
            value=_stage("RequestsPerSecond"),
            unit="requests/s",
            service="API Gateway, stage prod",
            quota="",
            moved_by="Throttling in infra/package.json",
            source=_OURS,
        ),
        "stage_burst": Limit(
            value=_stage("Burst"),
            unit="requests",
            service="API Gateway, stage prod",
            quota="",
            moved_by="Throttling in infra/package.json",
            source=_OURS,
        ),
        "gateway_rate": Limit(
            value=10_000,
            younger=2_500,
            unit="requests/s",
            service="API Gateway",
            quota="Throttle rate",
            moved_by="a quota request",
            source=_GATEWAY,
        ),
        "gateway_burst": Limit(
            value=5_000,
            younger=1_250,
            unit="requests",
            service="API Gateway",
            quota="Throttle burst rate",
            moved_by="AWS, with the rate: it cannot be requested",
            source=_GATEWAY,
        ),
        "lambda_concurrency": Limit(
            value=1_000,
            unit="executions",
            service="Lambda",
            quota="Concurrent executions",
            moved_by="a quota request (a new account has 10)",
            source=_LAMBDA,
        ),
        "lambda_scaling": Limit(
            value=1_000,
            unit="executions per 10 s and function",
            service="Lambda",
            quota="",
            moved_by="provisioned concurrency of the function",
            source=_SCALING,
            movable=False,
        ),
        "poller_start": Limit(
            value=5,
            unit="batches at once",
            service="Lambda, SQS event source",
            quota="",
            moved_by="provisioned mode of the event source (MinimumPollers), for a fee",
            source=_POLLERS,
            movable=False,
        ),
        "poller_growth": Limit(
            value=300,
            unit="batches a minute",
            service="Lambda, SQS event source",
            quota="",
            moved_by="provisioned mode of the event source (MinimumPollers), for a fee",
            source=_POLLERS,
            movable=False,
        ),
        "poller_most": Limit(
            value=1_250,
            unit="batches at once",
            service="Lambda, SQS event source",
            quota="",
            moved_by="provisioned mode of the event source (MaximumPollers), for a fee",
            source=_POLLERS,
            movable=False,
        ),
        "in_flight": Limit(
            value=120_000,
            unit="messages",
            service="SQS, standard queue",
            quota="Messages per queue (in flight)",
            moved_by="a support request",
            source=_QUEUES,
        ),
        "table_warm": Limit(
            value=4_000,
            unit="write units/s",
            service="DynamoDB, new table on demand",
            quota="",
            moved_by="WarmThroughput of the table, or time: it doubles its peak within 30 minutes",
            source=_WARM,
        ),
        "index_warm": Limit(
            value=4_000,
            unit="write units/s",
            service="DynamoDB, new index on demand",
            quota="",
            moved_by="WarmThroughput of the index, or time: it doubles its peak within 30 minutes",
            source=_WARM,
        ),
        "table_quota": Limit(
            value=40_000,
            unit="write units/s",
            service="DynamoDB, table on demand",
            quota="Table-level write throughput limit",
            moved_by="a quota request",
            source=_DYNAMODB,
        ),
        "partition_writes": Limit(
            value=1_000,
            unit="write units/s and partition",
            service="DynamoDB",
            quota="",
            moved_by="nothing: the number of shards is part of every row",
            source=_PARTITION,
            movable=False,
        ),
        "create_schedule": Limit(
            value=5_000,
            younger=250,
            unit="calls/s",
            service="EventBridge Scheduler",
            quota="CreateSchedule request rate",
            moved_by="a quota request",
            source=_SCHEDULER,
        ),
        "invocations": Limit(
            value=1_000,
            unit="invocations/s",
            service="EventBridge Scheduler",
            quota="Invocations throttle limit",
            moved_by="a quota request",
            source=_SCHEDULER,
        ),
        "schedules": Limit(
            value=10_000_000,
            unit="schedules",
            service="EventBridge Scheduler",
            quota="Number of schedules",
            moved_by="a quota request",
            source=_SCHEDULER,
        ),
    }
)

DEFAULTS: Mapping[str, float] = MappingProxyType(
    {name: limit.value for name, limit in LIMITS.items()}
)
"""The values alone, as the simulation takes them."""
