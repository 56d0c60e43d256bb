"""Invariants about wake-ups on AWS: every outstanding timer has one to come.

The embedded engine needs none of these: its dispatcher sleeps until the next row is due.
"""

from __future__ import annotations

from chalicelib.domain.timer import Timer, Wakeup
from tests.simulation.invariants.violation import InvariantViolation


def written_timer_has_a_wakeup(row: Timer, *, registered: bool) -> None:
    """A timer that was just created, moved, replayed or put up for a retry has a wake-up.

    Invariant 7 of docs/design.md. It is not checked where the writer knows that it could not
    register one: such a timer is stored as unarmed, and a sweep finds it.
    """
    if not registered:
        raise InvariantViolation(written_timer_has_a_wakeup, row)


def delivery_leaves_a_wakeup(wakeup: Wakeup, *, registered: bool) -> None:
    """A delivery that returns leaves its timer settled, or with another wake-up registered.

    Invariant 7 of docs/design.md.
    """
    if not registered:
        raise InvariantViolation(delivery_leaves_a_wakeup, wakeup)


def sweep_marks_only_queued_wakeups(wakeup: Wakeup, *, queued: bool) -> None:
    """A sweep marks a timer as woken only after it has put the wake-up on the queue.

    Invariant 7 of docs/design.md.
    """
    if not queued:
        raise InvariantViolation(sweep_marks_only_queued_wakeups, wakeup)
