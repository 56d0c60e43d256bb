"""The cost of a million timers at list prices, from the work in ``infra.work``.

``python -m infra.cost`` prints the tables of docs/cost.md, ``--write`` puts them there, and
``--json`` prints the same as JSON. Durations on AWS are assumptions, and marked below.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.service.ports import Metric
from infra.resources import resources_template
from infra.work import BATCH_CALLS, BATCH_SIZE, DELIVERY, FAR_TIMER, NEAR_TIMER, RETRY

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cost.md"

MILLION = 1_000_000
MINUTES = 43_800
"""Minutes in a month of 365 / 12 days."""

PRICES_OF = "2026-11"
"""The month of the published prices."""

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
"""Two for each of the 64 shards."""

QUERY_UNITS = 0.5
"""Read units of one query: eventually consistent, and up to 4 KB. It usually finds nothing."""

# Assumptions, as nothing was run on AWS: the seconds that each part of a function takes.
API_S = 0.05
AUTHORIZER_S = 0.02
RESPONSE_S = 0.2
"""How long a receiver takes to respond."""
WAIT_S = 0.5
"""How long a delivery waits for the due time: SQS delays only by whole seconds, rounded down."""
BATCH_WAIT_S = 1.0
"""The same for a batch, which waits for the last of its messages."""
BUSY_ID_WRITES = 0.2
"""Writes of the id counter per timer, with a limit of 100 timers a second per tenant.

A process then reserves a block of ten ids with one write. For each of these writes another one
fails, because several processes reserve ids of a tenant that is at its limit.
"""
BUSY_LOOKUPS = 1 / 100
"""One call of the authorizer per 100 timers: the gateway keeps the result for a minute."""
MANY_S = 5.0
"""How long the API's function takes for a request that sets a thousand timers."""
HAND_OVER_S = 0.1
"""How long the webhook function takes to queue a timer that is not due yet."""
SWEEP_S = 1.0


@dataclass(frozen=True)
class Load:
    """A kind of traffic: single timers, or so many that the batches are full.

    ``batch`` is the number of messages in a batch, and ``wait_s`` how long a batch waits for the
    due time. ``far`` timers need a schedule. ``id_writes`` is the number of writes of the id
    counter per timer, and ``lookups`` the number of calls of the authorizer per timer. ``requests``
    is the number of requests per timer, each of which takes the API's function ``api_s``, and
    ``messages`` the number of calls that register wake-ups.
    """

    name: str
    batch: int
    wait_s: float
    far: bool = False
    id_writes: float = 1.0
    lookups: float = 1.0
    requests: float = 1.0
    api_s: float = API_S
    messages: float = 1.0


LOADS = (
    Load("near, one by one", batch=1, wait_s=WAIT_S),
    Load(
        "near, busy", batch=10, wait_s=BATCH_WAIT_S, id_writes=BUSY_ID_WRITES, lookups=BUSY_LOOKUPS
    ),
    Load("far, one by one", batch=1, wait_s=WAIT_S, far=True),
    Load(
        "far, busy",
        batch=10,
        wait_s=BATCH_WAIT_S,
        far=True,
        id_writes=BUSY_ID_WRITES,
        lookups=BUSY_LOOKUPS,
    ),
    Load(
        "near, 1,000 a request",
        batch=10,
        wait_s=BATCH_WAIT_S,
        id_writes=BATCH_CALLS["UpdateItem"] / BATCH_SIZE,
        lookups=1 / BATCH_SIZE,
        requests=1 / BATCH_SIZE,
        api_s=MANY_S,
        messages=BATCH_CALLS["SendMessageBatch"] / BATCH_SIZE,
    ),
)

_EXTRA_LOADS = LOADS[:2]
"""The loads for which the events of some timers are priced."""


def rows(load: Load) -> dict[str, float]:
    """Return the cost in dollars of a million timers under ``load``, by part."""
    per_batch = 1 / load.batch
    work = FAR_TIMER if load.far else NEAR_TIMER
    return {
        "API Gateway, 1 request": load.requests * API_REQUEST,
        "authorizer function and its look-up": (
            _function(load.lookups, AUTHORIZER_S, 512) + load.lookups * READ_UNIT
        ),
        "API function": _function(load.requests, load.api_s, 512),
        f"DynamoDB, {work.writes} write units and the id": (
            (work.writes + load.id_writes) * WRITE_UNIT + work.reads * READ_UNIT
        ),
        "Scheduler, 1 schedule": work.calls.get("CreateSchedule", 0) * SCHEDULE,
        "webhook function": _function(1, HAND_OVER_S, 256) if load.far else 0.0,
        "SQS: send, receive, delete": (work.calls["SendMessage"] * load.messages + 2 * per_batch)
        * QUEUE_REQUEST,
        "webhook_queue function": _function(per_batch, load.wait_s + RESPONSE_S, 512),
    }


def extra_rows(load: Load) -> dict[str, float]:
    """Return the cost in dollars of a million events that only some timers have, by event.

    A failure notice only extends the run of the function that called the receiver. A hundred
    replays read a hundred rows of each of the eight partitions of failed timers: one read unit for
    each replay.
    """
    per_batch = 1 / load.batch
    queue = (1 + 2 * per_batch) * QUEUE_REQUEST
    function = _function(per_batch, load.wait_s + RESPONSE_S, 512)
    return {
        f"another attempt: {RETRY.writes} write units, a message, the queue's function": (
            RETRY.writes * WRITE_UNIT + queue + function
        ),
        "a notice of failure: the queue's function goes on": (
            per_batch * _seconds(RESPONSE_S, 512)
        ),
        f"a replay: 3 write units, the rate, a read unit, and a delivery with {DELIVERY.writes}": (
            (3 + DELIVERY.writes + load.id_writes) * WRITE_UNIT + READ_UNIT + queue + function
        ),
    }


def fixed() -> dict[str, float]:
    """Return the cost in dollars of a month without any timer, by part."""
    alarms = sum(
        resource["Type"] == "AWS::CloudWatch::Alarm"
        for resource in resources_template()["Resources"].values()
    )
    sweeps = MINUTES / MILLION
    # Lambda keeps five pollers on an idle queue. Each receives for 20 s, three times a minute.
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
    """Return the tables in Markdown, separated by empty lines."""
    timers = {load.name: rows(load) for load in LOADS}
    extras = {load.name.removeprefix("near, "): extra_rows(load) for load in _EXTRA_LOADS}
    lines = [*_table("per million timers", timers), _sums(timers), ""]
    lines += [*_table("per million of these", extras), ""]
    lines += ["| per month, without a timer | |", "| --- | ---: |"]
    lines += [f"| {part} | {_dollars(cost)} |" for part, cost in fixed().items()]
    lines.append(f"| **in all** | **{_dollars(sum(fixed().values()))}** |")
    return "\n".join(lines)


def document() -> dict[str, Any]:
    """Return the same figures as JSON takes them, in dollars."""

    def parts(costs: dict[str, float]) -> dict[str, float]:
        summed = {part: round(cost, 2) for part, cost in costs.items()}
        return {**summed, "in all": round(sum(costs.values()), 2)}

    return {
        "note": "Calculated from list prices and counted work. Nothing was billed.",
        "prices_of": PRICES_OF,
        "region": "us-east-1",
        "per_million_timers": {load.name: parts(rows(load)) for load in LOADS},
        "per_million_of_these": {
            load.name.removeprefix("near, "): {
                part: round(cost, 2) for part, cost in extra_rows(load).items()
            }
            for load in _EXTRA_LOADS
        },
        "per_month_without_timers": parts(fixed()),
    }


def updated(page: str) -> str:
    """Return the text of docs/cost.md with each table as the prices give it."""
    for table in tables().split("\n\n"):
        lines = re.escape(table[: table.index(" |")]) + r" \|.*\n(?:\|.*\n)*"
        page = re.sub(f"^{lines}", f"{table}\n", page, flags=re.MULTILINE)
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables or JSON, or write docs/cost.md."""
    parser = argparse.ArgumentParser(prog="python -m infra.cost", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--json", action="store_true", help="print JSON")
    choice.add_argument("--write", action="store_true", help="put the tables into docs/cost.md")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(json.dumps(document(), indent=2) if chosen.json else tables())
    return 0


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
    """Return the cost of a million times ``invocations``, each of ``seconds``."""
    return invocations * (INVOCATION + _seconds(seconds, megabytes))


def _seconds(seconds: float, megabytes: int) -> float:
    """Return the cost of a million times ``seconds`` of a function with so much memory."""
    return seconds * megabytes / 1024 * GB_SECOND * MILLION


def _dollars(amount: float) -> str:
    return f"${amount:.2f}" if amount else ""


if __name__ == "__main__":
    sys.exit(main())
