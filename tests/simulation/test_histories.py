"""A part of what ``make simulate`` runs, in every run of the tests; and that it would notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.__main__ import BUG_HISTORIES, STORES, hunt
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.trace import shown

HISTORIES = {"sqlite": 300, "dynamodb": 10, "embedded": 150}
FIRST = 1


SENDING = {"killed while sending", "no connection", "no answer", "server error", "slow"}
FAULTS = {
    "sqlite": SENDING
    | {"refused", "unanswered", "applied late", "stalled", "killed before", "killed after"}
    | {"lost", "doubled", "early", "late", "not deleted"},
    "dynamodb": {"refused", "unanswered"},
    "embedded": SENDING
    | {"refused", "unanswered", "killed in a commit", "disk full", "clock set", "no keys"},
}
"""What a hundred histories must have met, or they show nothing. Ten on DynamoDB meet only some."""


@pytest.mark.parametrize("store", STORES)
def test_no_history_breaks_a_rule_whatever_goes_wrong_in_it(store: str) -> None:
    drawn: Counter[str] = Counter()
    with STORES[store]() as tell:
        for seed in range(FIRST, FIRST + HISTORIES[store]):
            told = tell(seed)
            trace = "\n".join(map(str, told.trace[-100:]))
            assert told.broken is None, f"seed {seed}: {shown(told.broken)}\n{trace}"
            drawn += told.counted
    assert set(drawn) >= FAULTS[store]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = hunt(bug, FIRST, BUG_HISTORIES)
    assert found is not None, f"{bug.name} is not found in {BUG_HISTORIES} histories"


@pytest.mark.parametrize("store", STORES)
def test_a_seed_is_the_same_history_in_every_process(store: str) -> None:
    alone = digests(store, seed=12, histories=1, hash_seed="1")
    after_others = digests(store, seed=10, histories=3, hash_seed="2")
    assert alone == after_others[2:]
    assert len(set(after_others)) == 3


def digests(store: str, *, seed: int, histories: int, hash_seed: str) -> list[str]:
    """Return what is left of histories that were run in a process of their own."""
    command = [sys.executable, "-m", "tests.simulation", "--digests", "--store", store]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--histories", str(histories)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[:histories]
