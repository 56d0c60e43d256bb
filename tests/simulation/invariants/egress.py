"""Invariants about the budget of calls."""

from __future__ import annotations

from tests.simulation.invariants.violation import InvariantViolation


def calls_stay_within(name: str, count: int, allowed: float) -> None:
    """No tenant and no receiver has more calls than its limits allow."""
    if count > allowed:
        raise InvariantViolation(calls_stay_within, name, count, "of", allowed)
