"""Some of the runs of ``make simulate`` as tests, and a test for each mutant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.__main__ import RUNS_PER_MUTANT, STORES, look_for
from tests.simulation.invariants.final import no_error_is_unhandled
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.trace import shown

RUNS = {"sqlite": 300, "dynamodb": 10, "embedded": 150}
FIRST_SEED = 1


SENDING = {"killed while sending", "no connection", "no response", "server error", "slow"}
FAULTS = {
    "sqlite": SENDING
    | {"refused", "response lost", "applied late", "stalled", "killed before", "killed after"}
    | {"wake-up lost", "wake-up duplicated", "wake-up early", "wake-up late"}
    | {"message not deleted"},
    "dynamodb": {"refused", "response lost"},
    "embedded": SENDING
    | {"refused", "response lost", "killed in a commit", "disk full", "clock set"}
    | {"no signing keys"},
}
"""The faults that the runs must have met, or they show nothing. Ten on DynamoDB meet only some."""


@pytest.mark.parametrize("store", STORES)
def test_no_run_violates_an_invariant_whatever_faults_are_injected(store: str) -> None:
    injected: Counter[str] = Counter()
    with STORES[store]() as execute:
        for seed in range(FIRST_SEED, FIRST_SEED + RUNS[store]):
            result = execute(seed)
            trace = "\n".join(map(str, result.trace[-100:]))
            assert result.violation is None, f"seed {seed}: {shown(result.violation)}\n{trace}"
            injected += result.counts
    assert set(injected) >= FAULTS[store]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_found(mutant: Mutant) -> None:
    found = look_for(mutant, FIRST_SEED, RUNS_PER_MUTANT)
    assert found is not None, f"{mutant.name} is not found in {RUNS_PER_MUTANT} runs"
    assert found.violation is not None
    # A mutant that no longer runs at all would be found too, and show nothing.
    assert found.violation.invariant != no_error_is_unhandled.__name__, found.violation


@pytest.mark.parametrize("store", STORES)
def test_a_seed_gives_the_same_run_in_every_process(store: str) -> None:
    alone = digests(store, seed=12, runs=1, hash_seed="1")
    after_others = digests(store, seed=10, runs=3, hash_seed="2")
    assert alone == after_others[2:]
    assert len(set(after_others)) == 3


def digests(store: str, *, seed: int, runs: int, hash_seed: str) -> list[str]:
    """Return the hashes of the traces of runs in a new process."""
    command = [sys.executable, "-m", "tests.simulation", "--digests", "--store", store]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--runs", str(runs)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[:runs]
