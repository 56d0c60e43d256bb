"""``python -m tests.simulation`` executes runs, and stops at the first violated invariant."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.simulation import aws_run, embedded_run
from tests.simulation.dynamodb_storage import dynamodb_storages
from tests.simulation.mutants import MUTANTS, Mutant, applied
from tests.simulation.sqlite_storage import sqlite_storages
from tests.simulation.trace import RunResult, shown

Execute = Callable[[int], RunResult]
"""Execute the run of a seed."""

TRACE_LINES = 200
"""How much of the trace is printed when an invariant was violated."""

RUNS_PER_MUTANT = 500
PROGRESS_EVERY = 1_000


@contextmanager
def on_sqlite() -> Iterator[Execute]:
    """Yield the AWS engine on SQLite."""
    with sqlite_storages() as new_storage:
        yield lambda seed: aws_run.execute(seed, new_storage)


@contextmanager
def on_dynamodb() -> Iterator[Execute]:
    """Yield the AWS engine on DynamoDB."""
    with dynamodb_storages() as new_storage:
        yield lambda seed: aws_run.execute(seed, new_storage)


@contextmanager
def on_embedded() -> Iterator[Execute]:
    """Yield the embedded engine."""
    yield embedded_run.execute


STORES: dict[str, Callable[[], AbstractContextManager[Execute]]] = {
    "sqlite": on_sqlite,
    "dynamodb": on_dynamodb,
    "embedded": on_embedded,
}
RUNS = {"sqlite": 10_000, "dynamodb": 300, "embedded": 3_000}


def main() -> int:
    """Do what the command line asks; return 1 on a violated invariant or an undetected mutant."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--runs", type=int, help="how many, for a mutant: at most")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each next is +1")
    parser.add_argument("--mutants", action="store_true", help="look for each mutant")
    parser.add_argument("--digests", action="store_true", help="print a hash of each trace")
    parser.add_argument("--trace", action="store_true", help="print the trace of each run")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if chosen.mutants:
        return look_for_all(chosen.seed, chosen.runs or RUNS_PER_MUTANT)
    with STORES[chosen.store]() as execute:
        runs = chosen.runs or RUNS[chosen.store]
        show = show_trace if chosen.trace else show_digest if chosen.digests else show_nothing
        return execute_all(execute, chosen.store, range(chosen.seed, chosen.seed + runs), show)


def show_nothing(_result: RunResult) -> None:
    """Print nothing of a run that violates no invariant."""


def show_digest(result: RunResult) -> None:
    """Print the hash of the trace."""
    print(result.digest())


def show_trace(result: RunResult) -> None:
    """Print the whole trace."""
    print(*result.trace, sep="\n")


def execute_all(
    execute: Execute, store: str, seeds: range, show: Callable[[RunResult], None]
) -> int:
    """Execute the runs of ``seeds`` and print the sum of their counts."""
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    for number, seed in enumerate(seeds, start=1):
        result = execute(seed)
        show(result)
        if result.violation is not None:
            report(result, store)
            return 1
        counts += result.counts
        if number % PROGRESS_EVERY == 0:
            print(f"{number} runs, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    took_s = time.perf_counter() - started
    print(
        f"{len(seeds)} runs on {store}, from seed {seeds[0]}: no invariant violated, {took_s:.1f} s"
    )
    print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    return 0


def report(result: RunResult, store: str) -> None:
    """Print the end of the trace, the violated invariant, and the command that repeats the run."""
    print(*result.trace[-TRACE_LINES:], sep="\n")
    if result.violation is not None and result.violation.__cause__ is not None:
        traceback.print_exception(result.violation.__cause__)
    print(f"\nviolated: {shown(result.violation)}")
    print(f"repeat: make simulate STORE={store} RUNS=1 SEED={result.seed}")
    print(f"trace: {result.digest()}")


def look_for(mutant: Mutant, first: int, runs: int) -> RunResult | None:
    """Return the first run in which ``mutant`` violates an invariant."""
    with STORES[mutant.store]() as execute, applied(mutant):
        for seed in range(first, first + runs):
            result = execute(seed)
            if result.violation is not None:
                return result
    return None


def look_for_all(first: int, runs: int) -> int:
    """Print a table of all mutants: the run that found each, and the invariant it violated."""
    print("| mutant | found in run | invariant violated |\n| --- | --- | --- |")
    missed = 0
    for mutant in MUTANTS:
        result = look_for(mutant, first, runs)
        if result is None or result.violation is None:
            missed += 1
            print(f"| {mutant.name} | not in {runs} | |", flush=True)
        else:
            found = result.seed - first + 1
            print(f"| {mutant.name} | {found} | {result.violation.invariant} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
