"""The generated documents: ``python -m local.documents`` writes them, ``--check`` compares them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local import errors_page, openapi_page, settings_page

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS: dict[str, Callable[[], str]] = {
    openapi_page.PATH: openapi_page.render,
    errors_page.PATH: errors_page.render,
    settings_page.PATH: settings_page.render,
}
"""The function that writes each document, by the document's path from the root of the project."""


def main(
    arguments: Sequence[str],
    root: Path = ROOT,
    documents: Mapping[str, Callable[[], str]] = DOCUMENTS,
) -> int:
    """Write the documents. With ``--check`` only compare them; return 1 if one is stale."""
    parser = argparse.ArgumentParser(prog="python -m local.documents", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which are stale")
    if not parser.parse_args(arguments).check:
        write(root, documents)
        return 0
    outdated = stale(root, documents)
    for path in outdated:
        print(f"{path} is stale: run make docs", file=sys.stderr)
    return 1 if outdated else 0


def write(root: Path, documents: Mapping[str, Callable[[], str]]) -> None:
    """Write every document below ``root``."""
    for path, render in documents.items():
        (root / path).write_text(render(), encoding="utf-8")


def stale(root: Path, documents: Mapping[str, Callable[[], str]]) -> list[str]:
    """Return the paths of the documents that are missing or not up to date."""
    return [path for path, render in documents.items() if _read(root / path) != render()]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
