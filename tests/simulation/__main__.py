"""``python -m tests.simulation`` runs histories, and stops at the first that breaks a rule."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.simulation import cloud, offline
from tests.simulation.bugs import BUGS, Bug, planted
from tests.simulation.disks import dynamodb_disks, sqlite_disks
from tests.simulation.trace import Told, shown

Tell = Callable[[int], Told]

LINES = 200
"""How much of the trace of a broken history is printed."""

BUG_HISTORIES = 500
PROGRESS = 1_000


@contextmanager
def on_sqlite() -> Iterator[Tell]:
    with sqlite_disks() as disks:
        yield lambda seed: cloud.tell(seed, disks)


@contextmanager
def on_dynamodb() -> Iterator[Tell]:
    with dynamodb_disks() as disks:
        yield lambda seed: cloud.tell(seed, disks)


@contextmanager
def on_embedded() -> Iterator[Tell]:
    yield offline.tell


STORES: dict[str, Callable[[], AbstractContextManager[Tell]]] = {
    "sqlite": on_sqlite,
    "dynamodb": on_dynamodb,
    "embedded": on_embedded,
}
HISTORIES = {"sqlite": 10_000, "dynamodb": 300, "embedded": 3_000}


def main() -> int:
    """Run what is asked for; return 1 if a rule was broken, or a planted bug not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--histories", type=int)
    parser.add_argument("--seed", type=int, default=1, help="of the first history")
    parser.add_argument("--bugs", action="store_true", help="plant each bug, and look for it")
    parser.add_argument("--digests", action="store_true", help="print a hash of each trace")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if chosen.bugs:
        return hunt_all(chosen.seed, chosen.histories or BUG_HISTORIES)
    with STORES[chosen.store]() as tell_one:
        histories = chosen.histories or HISTORIES[chosen.store]
        show = show_trace if chosen.trace else show_digest if chosen.digests else show_nothing
        return run(tell_one, chosen.store, range(chosen.seed, chosen.seed + histories), show)


def show_nothing(_told: Told) -> None:
    """Print nothing of a history that breaks no rule."""


def show_digest(told: Told) -> None:
    """Print what two runs of one history have in common."""
    print(told.digest())


def show_trace(told: Told) -> None:
    """Print all that happens."""
    print(*told.trace, sep="\n")


def run(tell_one: Tell, store: str, seeds: range, show: Callable[[Told], None]) -> int:
    """Run histories, and tell what was in them."""
    began = time.perf_counter()
    counted: Counter[str] = Counter()
    for number, seed in enumerate(seeds, start=1):
        told = tell_one(seed)
        show(told)
        if told.broken is not None:
            report(told, store)
            return 1
        counted += told.counted
        if number % PROGRESS == 0:
            print(f"{number} histories, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    took_s = time.perf_counter() - began
    print(
        f"{len(seeds)} histories on {store}, from seed {seeds[0]}: no rule broken, {took_s:.1f} s"
    )
    print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(counted.items())))
    return 0


def report(told: Told, store: str) -> None:
    """Say which rule was broken, by what, and how to see it again."""
    print(*told.trace[-LINES:], sep="\n")
    if told.broken is not None and told.broken.__cause__ is not None:
        traceback.print_exception(told.broken.__cause__)
    print(f"\nbroken: {shown(told.broken)}")
    print(
        f"again: make simulate STORE={store} HISTORIES=1 SEED={told.seed}  (trace {told.digest()})"
    )


def hunt(bug: Bug, first: int, histories: int) -> Told | None:
    """Return the first history that shows ``bug``."""
    with STORES[bug.store]() as tell_one, planted(bug):
        for seed in range(first, first + histories):
            told = tell_one(seed)
            if told.broken is not None:
                return told
    return None


def hunt_all(first: int, histories: int) -> int:
    """Print a table of what each planted bug was found by."""
    print("| planted bug | found in history | rule broken |\n| --- | --- | --- |")
    missed = 0
    for bug in BUGS:
        told = hunt(bug, first, histories)
        missed += told is None
        found = told.seed - first + 1 if told else f"not in {histories}"
        print(f"| {bug.name} | {found} | {getattr(told and told.broken, 'rule', '')} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
