"""The walks of docs/design.md name files, classes and functions that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"\| \d* \| (?P<file>`[^`]+`)? ?\| (?P<function>.*?) \| .*?\|")
_NAME = re.compile(r"`([A-Za-z_][\w.]*)`")


def hops() -> Iterator[tuple[str, str]]:
    """Yield each function of the walks, with its file."""
    file = ""
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        row = _ROW.fullmatch(line)
        if row is None:
            continue
        file = (row["file"] or file).strip("`")
        for name in _NAME.findall(row["function"]):
            yield file, name


HOPS = sorted(set(hops()))


def defined(file: str) -> set[str]:
    """Return the classes and functions of a file, methods as ``Class.method``."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{method.name}"
                for method in node.body
                if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
            }
    return names


def test_the_walks_are_found() -> None:
    assert len(HOPS) > 60


@pytest.mark.parametrize(("file", "name"), HOPS)
def test_every_hop_exists(file: str, name: str) -> None:
    assert name in defined(file)
