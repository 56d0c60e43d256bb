"""docs/simulation.md lists every invariant, in the words of its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.simulation.invariants import claims, final, keys, responses, sending, wakeups
from tests.simulation.mutants import MUTANTS

DOCS = Path(__file__).parents[2] / "docs" / "simulation.md"


@pytest.mark.parametrize("module", [responses, claims, keys, sending, wakeups, final])
def test_the_docs_list_every_invariant(module: ModuleType) -> None:
    docs = DOCS.read_text()
    assert [row for row in map(row_of, invariants_of(module)) if row not in docs] == []


def test_the_docs_list_every_mutant() -> None:
    docs = DOCS.read_text()
    assert [mutant.name for mutant in MUTANTS if f"\n| {mutant.name} | " not in docs] == []


def invariants_of(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """Yield the public functions that ``module`` defines."""
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_":
            yield value


def row_of(invariant: Callable[..., Any]) -> str:
    """Return the row that the docs must have: name and link, statement, number in the design."""
    documentation = inspect.getdoc(invariant) or ""
    statement = " ".join(documentation.split("\n\n")[0].split()).replace("``", "`")
    numbers = re.search(r"Invariants? (.*?) of docs/design\.md", documentation)
    file = invariant.__module__.rpartition(".")[2]
    link = f"[`{invariant.__name__}`](../tests/simulation/invariants/{file}.py)"
    return f"| {link} | {statement} | {numbers[1] if numbers else ''} |"
