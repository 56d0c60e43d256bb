"""The page of settings in the documents is the one that the table makes."""

from __future__ import annotations

from chalicelib.settings.table import SUBJECTS, TABLE
from local.documents import ROOT
from local.settings_page import PATH, render


def test_the_page_of_settings_is_the_one_that_the_table_makes() -> None:
    assert (ROOT / PATH).read_text(encoding="utf-8") == render(), (
        "docs/settings.md is stale: run make docs"
    )


def test_every_setting_has_one_row_under_its_subject() -> None:
    sections = render().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(SUBJECTS)
    for section, settings in zip(sections, SUBJECTS.values(), strict=True):
        rows = [line for line in section.split("\n") if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == [setting.name for setting in settings]


def test_no_cell_breaks_the_table() -> None:
    for line in render().split("\n"):
        assert line.count("|") in (0, 5), line


def test_a_row_shows_default_bounds_unit_and_help() -> None:
    page = render()
    assert "| `TIMERS_WORKERS` | `2` | 1 to 64 processes | " in page
    assert "| `TIMERS_SEND_TIMEOUT` | `10` | 0.1 to 60 s | " in page
    assert "| `TIMERS_AUTH` | `none`; `keys` on AWS | `none`, `keys` | " in page
    assert "| `TIMERS_ALLOWED_HOSTS` | not set | names, separated by commas | " in page
    for setting in TABLE:
        assert setting.help in page
