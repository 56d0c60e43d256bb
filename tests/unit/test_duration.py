"""Durations as clients write them, and what an error says about one that is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis.strategies import from_regex, integers, text

from chalicelib.domain.duration import (
    DURATION_PATTERN,
    MAX_DURATION_CHARACTERS,
    format_duration,
    parse_duration,
)

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def reads(duration: str) -> bool:
    try:
        parse_duration(duration)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("250ms", 250),
        ("1.5s", 1_500),
        ("90m", 90 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("2d", 2 * DAY),
        ("1w", 7 * DAY),
        ("0s", 0),
        ("007s", 7 * SECOND),
        ("1w2d3h4m5s6ms", 9 * DAY + 3 * HOUR + 4 * MINUTE + 5 * SECOND + 6),
        ("1h0.25m", HOUR + 15 * SECOND),
        ("PT4H1S", 4 * HOUR + SECOND),
        ("P1DT12H", 36 * HOUR),
        ("P2W", 14 * DAY),
        ("P0.5D", 12 * HOUR),
        ("PT0.5S", 500),
        ("PT1,5S", 1_500),
        ("PT90M", 90 * MINUTE),
    ],
)
def test_a_duration_is_read_to_the_millisecond(duration: str, expected: int) -> None:
    assert parse_duration(duration) == expected


@pytest.mark.parametrize(
    ("duration", "expected"),
    [("0.0001s", 1), ("1.0001s", 1_001), ("0.1ms", 1), ("2.000s", 2_000), ("PT0.00000001H", 1)],
)
def test_a_fraction_of_a_millisecond_is_rounded_up(duration: str, expected: int) -> None:
    assert parse_duration(duration) == expected


@pytest.mark.parametrize(
    ("duration", "message"),
    [
        ("1h90", '"1h90": 1h was read, then 90 has no unit (w, d, h, m, s, ms)'),
        ("90", '"90": 90 has no unit (w, d, h, m, s, ms)'),
        ("30m1h", '"30m1h": 30m was read, then 1h is out of order: w, d, h, m, s, ms, each at'),
        ("1h1h", '"1h1h": 1h was read, then 1h is out of order'),
        ("5min", '"5min": min is not a unit here (w, d, h, m, s, ms)'),
        ("1H", '"1H": H is not a unit here'),
        ("1.5h3m", '"1.5h3m": only the last amount may have a fraction'),
        ("1,5s", '"1,5s": write a fraction with a point'),
        ("-1s", '"-1s": a duration cannot be negative'),
        ("1h-3m", '"1h-3m": 1h was read, then a duration cannot be negative'),
        ("+1s", '"+1s": a number must stand before "+1s"'),
        ("1h 30m", '"1h 30m": 1h was read, then a number must stand before " 30m"'),
        (" 1h", '" 1h": a number must stand before " 1h"'),
        ("1h\n", '"1h\\n": 1h was read, then a number must stand before "\\n"'),
        (".5s", '".5s": a number must stand before ".5s"'),
        ("1.s", '"1.s": 1 has no unit'),
        ("1e5s", '"1e5s": e is not a unit here'),
        ("NaN", '"NaN": a number must stand before "NaN"'),
        ("\u0661h", '"\u0661h": a number must stand before'),
        ("\u00b2s", '"\u00b2s": a number must stand before'),
        ("", '"": write a duration such as'),
        ("P", '"P": nothing follows the "P"'),
        ("PT", '"PT": nothing follows the "T"'),
        ("P1DT", '"P1DT": nothing follows the "T"'),
        ("P1Y", '"P1Y": years and months have no fixed length'),
        ("P1M", '"P1M": years and months have no fixed length'),
        ("P1W2D", '"P1W2D": W is not a unit here (D)'),
        ("P1WT1H", '"P1WT1H": W is not a unit here (D)'),
        ("P1.5DT1H", '"P1.5DT1H": only the last amount may have a fraction'),
        ("PT1.5H3M", '"PT1.5H3M": only the last amount may have a fraction'),
        ("PT1h", '"PT1h": h is not a unit here (H, M, S)'),
        ("p1d", '"p1d": a number must stand before "p1d"'),
        ("9" * 70, f'"{"9" * 40}…": a duration has at most 64 characters'),
    ],
)
def test_an_error_shows_how_the_text_was_read(duration: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        parse_duration(duration)


def test_huge_amounts_are_exact() -> None:
    digits = "9" * (MAX_DURATION_CHARACTERS - 1)
    assert parse_duration(digits + "s") == int(digits) * SECOND


@settings(deadline=None, database=None)
@given(integers(min_value=0, max_value=10**15))
def test_a_formatted_duration_is_read_back(duration_ms: int) -> None:
    assert parse_duration(format_duration(duration_ms)) == duration_ms


@settings(deadline=None, database=None)
@given(from_regex(DURATION_PATTERN, fullmatch=True))
def test_what_matches_the_pattern_is_read_unless_it_is_too_long(duration: str) -> None:
    assert reads(duration) == (len(duration) <= MAX_DURATION_CHARACTERS)


@settings(deadline=None, database=None, max_examples=500)
@given(text(alphabet="PTWDHMSwdhms.,0159 -", max_size=12))
def test_nothing_else_is_read(duration: str) -> None:
    assert reads(duration) == bool(re.fullmatch(DURATION_PATTERN, duration))
