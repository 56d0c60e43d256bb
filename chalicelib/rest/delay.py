"""The ways to say when, of which a request has exactly one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.domain.errors import Fault
from chalicelib.domain.moment import DELAY_TOO_LONG, MAX_DELAY_S, has_offset, read_moment
from chalicelib.rest.fields import SECONDS_IN

_OTHER_FIELDS = ("delay", "at", "timezone")
"""The fields that say when, besides the amounts."""


def delay_s(hours: int, minutes: int, seconds: int) -> int:
    """Return the amounts together, in seconds."""
    return (hours * 60 + minutes) * 60 + seconds


def delay_fault(given: dict[str, Any]) -> Fault | None:
    """Return the fault of the given amounts together; the model checks each one by itself.

    The fault of a delay that is too long names the largest amount.
    """
    if not given:
        return Fault("seconds", "say when: at least one of hours, minutes, seconds is required")
    amounts = [given.get(name, 0) for name in SECONDS_IN]
    # Not isinstance: a bool is an int too, and the model has refused it already.
    if all(type(amount) is int for amount in amounts) and delay_s(*amounts) > MAX_DELAY_S:
        return Fault(max(given, key=lambda name: given[name] * SECONDS_IN[name]), DELAY_TOO_LONG)
    return None


def when_fault(given: Mapping[str, Any]) -> Fault | None:
    """Return the fault of the ways to say when, of which there must be exactly one."""
    amounts = {name: given[name] for name in SECONDS_IN if name in given}
    if given.keys().isdisjoint(_OTHER_FIELDS):
        return delay_fault(amounts)
    for name in _OTHER_FIELDS:
        if name in given and given[name] is None:
            return Fault(name, "must be a string")
    ways = [*list(amounts)[:1], *(name for name in ("delay", "at") if given.get(name) is not None)]
    if len(ways) > 1:
        return Fault(ways[-1], f"say when in one way: not {ways[0]} and {ways[-1]} together")
    if given.get("timezone") is not None and ways != ["at"]:
        return Fault("timezone", "belongs to at, which is missing")
    if ways == ["at"]:
        return _moment_fault(given["at"], given.get("timezone"))
    return None if ways == ["delay"] else delay_fault(amounts)


def _moment_fault(at: Any, zone: Any) -> Fault | None:
    """Return the fault of a moment with its zone; the model checks each one by itself."""
    if not isinstance(at, str) or not (zone is None or isinstance(zone, str)):
        return None
    try:
        if zone is not None and has_offset(at):
            return Fault("timezone", "is for local time, and at has an offset from UTC already")
        read_moment(at, zone)
    except ValueError as error:
        return Fault("at", str(error))
    return None
