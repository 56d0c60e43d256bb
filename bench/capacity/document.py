"""The JSON document of a run, and the page ``docs/capacity.md`` that is made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bench.capacity import by_count, pending
from bench.capacity.limits import LIMITS, LOOKED_UP
from bench.capacity.scenarios import SCENARIOS, describe
from infra.package import ROOT

PAGE: Path = ROOT / "docs" / "capacity.md"
BILLION = 1_000_000_000
MONTH_DAYS = 30


def document() -> dict[str, Any]:
    """Return every scenario, the rates by count, and the table of limits."""
    return {
        "note": "Simulated and counted from published limits. Nothing here was measured on AWS.",
        "scenarios": {name: describe(load) for name, load in SCENARIOS.items()},
        "a_billion_pending": dataclasses.asdict(pending.count(BILLION, MONTH_DAYS)),
        "timers_per_s_at_each_limit": {
            "near": by_count.rates(far=False),
            "far": by_count.rates(far=True),
        },
        "far_timers_due_in_one_second": by_count.due_in_one_second(),
        "limits": {
            name: {**dataclasses.asdict(limit), "looked_up": LOOKED_UP}
            for name, limit in LIMITS.items()
        },
    }


def page() -> str:
    """Return ``docs/capacity.md``."""
    found = document()
    parts = [_INTRODUCTION, _scenarios(found), _MODEL, _rates(found), _billion(found), _limits()]
    return "\n".join(parts)


_INTRODUCTION = """\
# Capacity on AWS, simulated

`.venv/bin/python -m bench.capacity` simulates the service against AWS's published limits and
prints JSON. With `--write` it writes this page, and a test holds the page up to date. **Every
figure here is simulated or counted. Nothing was measured on AWS.**

## Scenarios
"""

_MODEL = """
*Refused* creates get 429 or 503, and a client may repeat them. Late timers are not lost. The time
*until all are sent* goes from the start of the run to the end of the last delivery.

The simulation moves timers in steps of 0.1 s. It assumes the durations of
[cost.md](cost.md#a-million-timers): 50 ms for the API's function, a wait of 1 s for a batch, and a
receiver that responds within 0.2 s, or hangs for the whole send timeout. The table and its index
are new. The event source adds its 300 batches a minute evenly. Left out are the authorizer, the id
counter, retries, wake-ups of refused timers, DynamoDB's burst capacity, and the growth of a table
in the run.

## The rate at which each limit is met

These are timers a second that are set and delivered, by count: the limit divided by what one timer
uses of it.
"""


def _scenarios(found: dict[str, Any]) -> str:
    lines = []
    for name, scenario in found["scenarios"].items():
        sums, first = scenario["in_all"], scenario["first_limit"]
        lines += [
            f"### {name}",
            "",
            f"- First limit: {_met(first)}." if first else "- No limit is met.",
        ]
        lines += [f"- Then: {_met(met)}." for met in scenario["limits_met"][1:]]
        lines.append(f"- In all: {_sums(sums)}.")
        raised = scenario["carried_by"]["raised"]
        if raised:
            wanted = "; ".join(
                f"{_name(limit)} {each['to']:,.0f} {each['unit']} ({each['moved_by']})"
                for limit, each in raised.items()
            )
            lines.append(f"- What carries it: {wanted}.")
            lines.append(f"- With that: {_sums(scenario['carried_by']['then'])}.")
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def _met(met: dict[str, Any]) -> str:
    quota = f' (quota "{met["quota"]}")' if met["quota"] else ""
    return (
        f"{met['service']}, {met['value']:,.0f} {met['unit']}{quota}, after {met['at_s']:g} s, "
        f"when {met['asked']:,.0f} were asked for. It is moved by {met['moved_by']}"
    )


def _sums(sums: dict[str, float]) -> str:
    parts = []
    if sums["created"]:
        parts.append(f"{sums['created']:,} set, {sums['refused']:,} refused")
    if sums["unarmed"]:
        parts.append(f"{sums['unarmed']:,} left to the sweeper")
    if sums["delivered"]:
        parts.append(
            f"{sums['delivered']:,} sent, {sums['last_delivery_s']:,} s until all are sent, the "
            f"last {sums['latest_start_s']:,.1f} s late, at most "
            f"{sums['most_batches_at_once']:,} batches at once"
        )
    return "; ".join(parts)


def _name(limit: str) -> str:
    return LIMITS[limit].quota or LIMITS[limit].service


def _rates(found: dict[str, Any]) -> str:
    near, far = (found["timers_per_s_at_each_limit"][kind] for kind in ("near", "far"))
    lines = ["| limit | near timers a second | far timers a second |", "| --- | ---: | ---: |"]
    for name in sorted(far, key=lambda limit: (far[limit], limit)):
        value = f"{near[name]:,.0f}" if name in near else ""
        lines.append(f"| {LIMITS[name].service}: `{name}` | {value} | {far[name]:,.0f} |")
    lines += [
        "",
        "Schedules are spread over ten minutes. So before one of them fires late, as many far",
        f"timers may be due in the same second: {found['far_timers_due_in_one_second']:,}.",
        "",
    ]
    return "\n".join(lines)


def _billion(found: dict[str, Any]) -> str:
    at = found["a_billion_pending"]
    return f"""\
## A billion pending timers

They are due evenly over {at["days"]} days: {at["per_s"]:,} a second.

| | |
| --- | ---: |
| first limit: Scheduler's schedules (quota "Number of schedules") | {at["armed"]:,} |
| timers without a schedule, left to the sweeper | {at["unarmed"]:,} |
| of these due a second | {at["unarmed_per_s"]:,} |
| what the sweeper can wake a second | {at["sweeps_per_s"]:,} |
| behind after an hour of sweeps | {at["behind"]:,} |
| storage | {at["storage_gb"]:,} GB |
| storage and recovery a month | ${at["storage_dollars_a_month"]:,.2f} |
| days to set them at the rate of `prod` | {at["fill_days"]:,} |

The sweeper reads only what is due within two minutes, so its cost does not follow what is pending.
Its rate is assumed from {pending.CALL_S * 1000:g} ms a call.
"""


def _limits() -> str:
    lines = [
        "## The limits",
        "",
        f"AWS's defaults in a large Region, looked up on {LOOKED_UP}. A younger one may have less.",
        "",
        "| limit | service | value | younger Regions | name of the quota | moved by | source |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    for name, limit in LIMITS.items():
        younger = f"{limit.younger:,.0f}" if limit.younger is not None else ""
        source = f"[AWS]({limit.source})" if "://" in limit.source else limit.source
        lines.append(
            f"| `{name}` | {limit.service} | {limit.value:,.0f} {limit.unit} | {younger} "
            f"| {limit.quota} | {limit.moved_by} | {source} |"
        )
    return "\n".join(lines) + "\n"
