"""``python -m tests.simulation`` tells histories and stops at the first that breaks a rule."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
from collections import Counter

from tests.simulation.disks import dynamodb_disks, sqlite_disks
from tests.simulation.history import Told, tell

STORES = {"sqlite": sqlite_disks, "dynamodb": dynamodb_disks}
HISTORIES = {"sqlite": 10_000, "dynamodb": 300}
LINES = 150


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--histories", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trace", action="store_true")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    histories = chosen.histories or HISTORIES[chosen.store]
    began = time.perf_counter()
    counted: Counter[str] = Counter()
    with STORES[chosen.store]() as disks:
        for seed in range(chosen.seed, chosen.seed + histories):
            told = tell(seed, disks)
            if chosen.trace:
                print(*told.trace, sep="\n")
            if told.broken is not None:
                report(told, chosen.store)
                return 1
            counted += told.counted
    took = time.perf_counter() - began
    print(f"{histories} histories in {took:.1f} s", dict(counted.most_common()))
    return 0

def report(told, store):
    if told.broken.__cause__:
        import traceback; traceback.print_exception(told.broken.__cause__)
    print(*told.trace[-LINES:], sep="\n")
    print(f"seed {told.seed} on {store}: {told.broken}")

if __name__ == "__main__":
    sys.exit(main())
