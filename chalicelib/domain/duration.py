"""Durations as clients write them: ``1h30m``, or ``PT1H30M`` as in ISO 8601. Pure.

Both forms have the units in descending order, each at most once. Only the last amount may have a
fraction. Years and months are refused, because their length is not fixed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from chalicelib.domain.errors import excerpt

MAX_DURATION_CHARACTERS = 64
"""The length of a text that is read. Every limit of ours needs far fewer digits."""

_SHORT_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_ISO_WEEK_MS = {"W": _SHORT_MS["w"]}
_ISO_DAY_MS = {"D": _SHORT_MS["d"]}
_ISO_TIME_MS = {"H": _SHORT_MS["h"], "M": _SHORT_MS["m"], "S": _SHORT_MS["s"]}

# ASCII only: `int` also reads the digits of other scripts.
_AMOUNT = re.compile(
    r"(?P<whole>[0-9]+)(?:(?P<point>[.,])(?P<fraction>[0-9]+))?(?P<unit>[a-zA-Z]*)"
)
_FRACTION_NOT_LAST = "only the last amount may have a fraction"
_EXAMPLES = "write a duration such as 90m, 1h30m, 1.5s or PT4H1S"


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration, 0 or more, without an upper limit.

    A fraction of a millisecond is rounded up, so that nothing happens early. Raises ``ValueError``
    with a message that shows how the text was read.
    """
    try:
        _check_length(text)
        return _read_iso(text[1:]) if text.startswith("P") else _read(text, _SHORT_MS)
    except ValueError as error:
        raise ValueError(f"{_quoted(text)}: {error}") from None


def format_duration(duration_ms: int) -> str:
    """Return a duration in the short form, which ``parse_duration`` reads back: ``1h30m``."""
    parts, rest = [], duration_ms
    for unit, unit_ms in _SHORT_MS.items():
        amount, rest = divmod(rest, unit_ms)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"


def _check_length(text: str) -> None:
    if len(text) > MAX_DURATION_CHARACTERS:
        raise ValueError(f"a duration has at most {MAX_DURATION_CHARACTERS} characters")


def _quoted(text: str) -> str:
    """Return the beginning of a text as JSON, which escapes control characters."""
    return json.dumps(excerpt(text), ensure_ascii=False)


def _read_iso(text: str) -> int:
    """Read what follows the ``P``: weeks, or days and a time (ISO 8601-1, 5.5.2)."""
    date, t, time = text.partition("T")
    if t and not time:
        raise ValueError('nothing follows the "T"')
    if not (date or time):
        raise ValueError('nothing follows the "P"')
    if re.search("[0-9][YM]", date):
        raise ValueError("years and months have no fixed length; use W, D, H, M and S")
    if date.endswith("W") and not t:
        return _read(date, _ISO_WEEK_MS)
    if time and re.search("[.,]", date):
        raise ValueError(_FRACTION_NOT_LAST)
    return (_read(date, _ISO_DAY_MS) if date else 0) + (_read(time, _ISO_TIME_MS) if time else 0)


def _read(text: str, units_ms: Mapping[str, int]) -> int:
    """Return the milliseconds of amounts with these units, which are in descending order.

    Raises ``ValueError`` at the first amount that is wrong.
    """
    total, position, left = 0, 0, list(units_ms)
    while position < len(text) or position == 0:
        amount = _AMOUNT.match(text, position)
        fault = _fault(amount, units_ms, left) if amount else _no_amount(text[position:])
        if fault or not amount:
            read = f"{text[:position]} was read, then " if position else ""
            raise ValueError(f"{read}{fault}")
        unit = amount["unit"]
        left = left[left.index(unit) + 1 :]
        total += _milliseconds(amount["whole"], amount["fraction"] or "", units_ms[unit])
        position = amount.end()
    return total


def _fault(amount: re.Match[str], units_ms: Mapping[str, int], left: Sequence[str]) -> str | None:
    """Return what is wrong with an amount, None if nothing is. ``left`` are the units to come."""
    if amount["unit"] not in left:
        return _wrong_unit(amount[0], amount["unit"], list(units_ms))
    if amount["fraction"] and amount.end() < len(amount.string):
        return _FRACTION_NOT_LAST
    if amount["point"] == "," and units_ms is _SHORT_MS:
        return "write a fraction with a point"
    return None


def _milliseconds(whole: str, fraction: str, unit_ms: int) -> int:
    """Return an amount in milliseconds, rounded up. It is exact: no float takes part."""
    scale: int = 10 ** len(fraction)
    return -(-int(whole + fraction) * unit_ms // scale)


def _no_amount(rest: str) -> str:
    if not rest:
        return _EXAMPLES
    if rest.startswith("-"):
        return "a duration cannot be negative"
    return f"a number must stand before {_quoted(rest)}; {_EXAMPLES}"


def _wrong_unit(amount: str, unit: str, units: Sequence[str]) -> str:
    if not unit:
        return f"{amount} has no unit ({', '.join(units)})"
    if unit in units:
        return f"{amount} is out of order: {', '.join(units)}, each at most once"
    return f"{unit} is not a unit here ({', '.join(units)})"


def _one_with_fraction(units: Sequence[str], point: str) -> list[str]:
    """Return one pattern for each unit that can be the last."""
    whole = [f"([0-9]+{unit})?" for unit in units]
    return [
        "".join(whole[:place]) + rf"[0-9]+({point}[0-9]+)?{unit}"
        for place, unit in enumerate(units)
    ]


def _pattern() -> str:
    short = _one_with_fraction(list(_SHORT_MS), r"\.")
    point = "[.,]"
    weeks = _one_with_fraction(list(_ISO_WEEK_MS), point)
    days = _one_with_fraction(list(_ISO_DAY_MS), point)
    times = [f"([0-9]+D)?T{each}" for each in _one_with_fraction(list(_ISO_TIME_MS), point)]
    return f"^({'|'.join(short)}|P({'|'.join([*weeks, *days, *times])}))$"


DURATION_PATTERN = _pattern()
"""A regular expression (ECMA 262) for the texts that ``parse_duration`` reads."""
