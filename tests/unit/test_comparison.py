"""docs/comparison.md links each cell of ours to a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "comparison.md").read_text()
ROWS = [
    line.split(" | ")
    for line in DOCUMENT.splitlines()
    if line.startswith("| ") and not line.startswith(("| | ", "| ---"))
]
LINK = re.compile(r"\]\((\.\./tests/[^)#]+)#([a-z0-9_]+)\)")


@pytest.mark.parametrize("row", ROWS, ids=[row[0].removeprefix("| ") for row in ROWS])
def test_each_cell_of_ours_names_a_test(row: list[str]) -> None:
    links = LINK.findall(row[1])
    assert links
    for path, name in links:
        tree = ast.parse((DOCS / path).resolve().read_text())
        names = [
            node.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        assert name in names, path


def test_each_source_of_the_others_is_named() -> None:
    used = set(re.findall(r"\]\[(\w+)\]", DOCUMENT))
    assert used == set(re.findall(r"^\[(\w+)\]: https://", DOCUMENT, re.MULTILINE))
