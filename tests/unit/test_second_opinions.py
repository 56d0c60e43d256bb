"""The opinions of others are asked only where their tools can be installed."""

from __future__ import annotations

import pytest

from local import second_opinions
from local.virtualenv import SetUpError


def test_without_the_tools_one_line_says_that_they_are_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_name: str) -> None:
        raise SetUpError("there is no network")

    assert second_opinions.main(prepare=fail) == 0
    assert capsys.readouterr().out == "second-opinions: skipped, because there is no network\n"
