"""Percentiles, progress, and the one error of the benchmarks."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


def progress(message: str) -> None:
    """Print to the standard error, because the standard output is for the figures."""
    print(f"bench: {message}", file=sys.stderr, flush=True)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of ``ordered``, which must be sorted and not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread_of(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Return minimum, median, 99th percentile and maximum; None for each without values."""
    ordered = sorted(values_ms)
    if not ordered:
        return dict.fromkeys(("min_ms", "p50_ms", "p99_ms", "max_ms"))
    return {
        "min_ms": round(ordered[0], 2),
        "p50_ms": round(percentile(ordered, 50), 2),
        "p99_ms": round(percentile(ordered, 99), 2),
        "max_ms": round(ordered[-1], 2),
    }
