"""A part of what ``make simulate`` runs, in every run of the tests; and that it would notice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.__main__ import BUG_HISTORIES, Tell, hunt
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.trace import Told, shown

SQLITE_HISTORIES = 300
DYNAMODB_HISTORIES = 10
FIRST = 1


def told_well(told: Told) -> None:
    trace = "\n".join(map(str, told.trace[-100:]))
    assert told.broken is None, f"seed {told.seed}: {shown(told.broken)}\n{trace}"


def test_no_history_on_sqlite_breaks_a_rule(sqlite: Tell) -> None:
    for seed in range(FIRST, FIRST + SQLITE_HISTORIES):
        told_well(sqlite(seed))


def test_no_history_on_dynamodb_breaks_a_rule(dynamodb: Tell) -> None:
    for seed in range(FIRST, FIRST + DYNAMODB_HISTORIES):
        told_well(dynamodb(seed))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = hunt(bug, FIRST, BUG_HISTORIES)
    assert found is not None, f"{bug.name} is not found in {BUG_HISTORIES} histories"


def test_every_fault_is_drawn(sqlite: Tell) -> None:
    counted = sqlite(FIRST).counted
    for seed in range(FIRST + 1, FIRST + 100):
        counted += sqlite(seed).counted
    assert all(counted[fault] for fault in FAULTS), counted


FAULTS = (
    "refused",
    "unanswered",
    "applied late",
    "slow",
    "stalled",
    "killed before",
    "killed after",
    "killed while sending",
    "no connection",
    "no answer",
    "server error",
    "lost",
    "doubled",
    "early",
    "late",
)


@pytest.mark.parametrize("store", ["sqlite", "dynamodb"])
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
