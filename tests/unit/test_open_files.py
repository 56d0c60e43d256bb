"""How many connections a limit of open files allows."""

from __future__ import annotations

import pytest

from chalicelib.embedded.open_files import RESERVED, connections_within


@pytest.mark.parametrize(
    ("limit", "wanted", "allowed"),
    [
        (1_000_000, 10_000, 10_000),
        (10_000 + RESERVED, 10_000, 10_000),
        (10_000, 10_000, 10_000 - RESERVED),
        (1_024, 10_000, 768),
        (256, 10_000, 192),
        (256, 10, 10),
        (4, 10_000, 3),
        (1, 10_000, 1),
    ],
)
def test_a_low_limit_is_mostly_for_calls(limit: int, wanted: int, allowed: int) -> None:
    assert connections_within(limit, wanted) == allowed
