"""Generated documents are up to date, and a check finds those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import documents
from local.documents import DOCUMENTS, ROOT, stale, write

TABLE = {"docs/a.md": lambda: "a \u00e9\n", "docs/b.md": lambda: "b\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return tmp_path


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_generated_document_is_fresh(path: str) -> None:
    assert stale(ROOT, {path: DOCUMENTS[path]}) == [], "run make docs"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_generated_document_says_that_it_is_generated(path: str) -> None:
    assert "make docs" in DOCUMENTS[path]().splitlines()[0]


def test_a_written_document_is_fresh(root: Path) -> None:
    write(root, TABLE)
    assert stale(root, TABLE) == []


def test_a_document_that_was_edited_or_removed_is_stale(root: Path) -> None:
    write(root, TABLE)
    (root / "docs/a.md").write_text("a e\n")
    assert stale(root, TABLE) == ["docs/a.md"]
    (root / "docs/b.md").unlink()
    assert stale(root, TABLE) == ["docs/a.md", "docs/b.md"]


def test_the_check_names_stale_documents_and_the_command_that_writes_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert documents.main(["--check"], root, TABLE) == 1
    assert capsys.readouterr().err == (
        "docs/a.md is stale: run make docs\ndocs/b.md is stale: run make docs\n"
    )
    assert documents.main([], root, TABLE) == 0
    assert documents.main(["--check"], root, TABLE) == 0
    assert capsys.readouterr().err == ""
