"""What a million timers cost at list prices: ``python -m infra.cost`` prints the tables of the
guide. Counts are what the tests count; times on AWS are assumptions, marked as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.service.ports import Metric
from infra.package import resources_template

MILLION = 1_000_000
MINUTES = 43_800
"""Minutes of a month."""

# us-east-1, US dollars: per million requests or units, per GB-second on arm64, per month.
API_REQUEST = 3.50
INVOCATION = 0.20
GB_SECOND = 0.0000133334
WRITE_UNIT = 0.625
READ_UNIT = 0.125
QUEUE_REQUEST = 0.40
SCHEDULE = 1.00
ALARM = 0.10
METRIC = 0.30

METRICS = len(Metric)
SWEEP_QUERIES = 128
QUERY_UNITS = 0.5
"""An eventually consistent read of up to 4 KB: what is not missed is not read."""

# Assumed, as nothing was run on AWS: seconds a function takes.
API_S = 0.05
AUTHORIZER_S = 0.02
ANSWER_S = 0.2
WAIT_S = 0.5
"""A delay is rounded down to the second, so a single message waits half a second on average."""
BATCH_WAIT_S = 1.0
BUSY_LEASE = 0.2
"""Writes of the counter for a timer, where tenants are held to 100 a second: leases of ten ids, and
as many failed conditions while several processes lease for a tenant that uses up its rate."""
BUSY_ASKED = 1 / 100
"""A hundred timers of one key within the minute for which the gateway knows it."""
HAND_OVER_S = 0.1
SWEEP_S = 1.0


@dataclass(frozen=True)
class Load:
    """How timers come: one by one, or so many that batches fill.

    ``asked`` is how often the authorizer is asked for a timer: the gateway keeps its answer.
    """

    name: str
    batch: int
    wait_s: float
    far: bool = False
    lease: float = 1.0
    asked: float = 1.0


LOADS = (
    Load("near, one by one", batch=1, wait_s=WAIT_S),
    Load("near, busy", batch=10, wait_s=BATCH_WAIT_S, lease=BUSY_LEASE, asked=BUSY_ASKED),
    Load("far, one by one", batch=1, wait_s=WAIT_S, far=True),
    Load(
        "far, busy",
        batch=10,
        wait_s=BATCH_WAIT_S,
        far=True,
        lease=BUSY_LEASE,
        asked=BUSY_ASKED,
    ),
)


def rows(load: Load) -> dict[str, float]:
    """Return what a million timers of one kind cost, part by part, in dollars."""
    per_batch = 1 / load.batch
    return {
        "API Gateway, 1 request": API_REQUEST,
        "authorizer function and its look-up": (
            _function(load.asked, AUTHORIZER_S, 512) + load.asked * READ_UNIT
        ),
        "API function": _function(1, API_S, 512),
        "DynamoDB, 5 write units and the id": (5 + load.lease) * WRITE_UNIT,
        "Scheduler, 1 schedule": SCHEDULE if load.far else 0.0,
        "webhook function": _function(1, HAND_OVER_S, 256) if load.far else 0.0,
        "SQS: send, receive, delete": (1 + 2 * per_batch) * QUEUE_REQUEST,
        "webhook_queue function": _function(per_batch, load.wait_s + ANSWER_S, 512),
    }


def besides(load: Load) -> dict[str, float]:
    """Return what a million times cost that which not every timer needs, in dollars.

    A notice of failure makes the function that calls anyway take longer. For a hundred replays
    each of eight partitions of failed timers is asked for a hundred: a read unit for a replay.
    """
    per_batch = 1 / load.batch
    queue = (1 + 2 * per_batch) * QUEUE_REQUEST
    function = _function(per_batch, load.wait_s + ANSWER_S, 512)
    return {
        "another attempt: 4 write units, a message, the queue's function": (
            4 * WRITE_UNIT + queue + function
        ),
        "a notice of failure: the queue's function goes on": (per_batch * _seconds(ANSWER_S, 512)),
        "a replay: 3 write units, a read unit, and a delivery with 3": (
            6 * WRITE_UNIT + READ_UNIT + queue + function
        ),
    }


def fixed() -> dict[str, float]:
    """Return what a stage costs a month that has no timers, in dollars."""
    alarms = sum(
        resource["Type"] == "AWS::CloudWatch::Alarm"
        for resource in resources_template()["Resources"].values()
    )
    sweeps = MINUTES / MILLION
    polls = 5 * 3 * MINUTES / MILLION
    return {
        f"sweeper: {SWEEP_QUERIES} queries a minute": (
            sweeps * SWEEP_QUERIES * QUERY_UNITS * READ_UNIT
        ),
        "sweeper: its function": sweeps * _function(1, SWEEP_S, 512),
        "SQS: Lambda's polling of an idle queue": polls * QUEUE_REQUEST,
        f"CloudWatch: {alarms} alarms": alarms * ALARM,
        f"CloudWatch: {METRICS} metrics": METRICS * METRIC,
    }


def tables() -> str:
    """Return the tables in Markdown, an empty line between them."""
    timers = {load.name: rows(load) for load in LOADS}
    extras = {load.name.removeprefix("near, "): besides(load) for load in LOADS if not load.far}
    lines = [*_table("per million timers", timers), _sums(timers), ""]
    lines += [*_table("per million of these", extras), ""]
    lines += ["| per month, without a timer | |", "| --- | ---: |"]
    lines += [f"| {part} | {_dollars(cost)} |" for part, cost in fixed().items()]
    lines.append(f"| **in all** | **{_dollars(sum(fixed().values()))}** |")
    return "\n".join(lines)


def _table(title: str, columns: dict[str, dict[str, float]]) -> list[str]:
    parts = next(iter(columns.values()))
    return [
        f"| {title} | " + " | ".join(columns) + " |",
        "| --- |" + " ---: |" * len(columns),
        *(
            f"| {part} | "
            + " | ".join(_dollars(column[part]) for column in columns.values())
            + " |"
            for part in parts
        ),
    ]


def _sums(columns: dict[str, dict[str, float]]) -> str:
    sums = " | ".join(f"**{_dollars(sum(column.values()))}**" for column in columns.values())
    return f"| **in all** | {sums} |"


def _function(invocations: float, seconds: float, megabytes: int) -> float:
    """Return what a million times ``invocations`` cost."""
    return invocations * (INVOCATION + _seconds(seconds, megabytes))


def _seconds(seconds: float, megabytes: int) -> float:
    """Return what a million times ``seconds`` of a function cost."""
    return seconds * megabytes / 1024 * GB_SECOND * MILLION


def _dollars(amount: float) -> str:
    return f"${amount:.2f}" if amount else ""


if __name__ == "__main__":
    print(tables())
