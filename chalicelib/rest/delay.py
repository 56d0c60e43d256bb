"""The delay of a timer: the amounts of hours, minutes and seconds, which add up. Pure."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Fault
from chalicelib.rest.fields import DELAY_TOO_LONG, MAX_DELAY_S, SECONDS_IN


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
