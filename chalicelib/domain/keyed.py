"""Keyed timers: a client names a timer itself, and sets it again under the same name.

``decide`` says what a request to set the timer of a key does. The stores find the timer, and write
the decision in one atomic step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from chalicelib.domain.errors import TimerInFlight
from chalicelib.domain.timer import NewTimer, Timer

KEY_PATTERN = "^[A-Za-z0-9._~:@-]{1,200}$"

_KEY = re.compile(KEY_PATTERN.strip("^$"), re.ASCII)


def is_key(text: str) -> bool:
    """Return whether ``text`` can be the key of a timer."""
    return _KEY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetByKey:
    """A request to set the timer of a key.

    ``new`` is the timer if the key has none yet, with its key. ``bound_ms`` is the client's
    ``no_later_than``, in ms after the first set. ``new_if_in_flight`` asks for another timer while
    the one of the key is in flight.
    """

    new: NewTimer
    bound_ms: int | None = None
    new_if_in_flight: bool = False

    @property
    def key(self) -> str:
        """The key. Raises ``ValueError`` if the timer has none."""
        if self.new.key is None:
            raise ValueError("the timer has no key")
        return self.new.key


@dataclass(frozen=True, slots=True)
class Replacement:
    """A change of an outstanding timer, which applies only if it is still as ``before``."""

    before: Timer
    after: Timer

    @property
    def earlier(self) -> bool:
        """Whether the next attempt is earlier than before."""
        return self.after.version != self.before.version


@dataclass(frozen=True, slots=True)
class KeyedTimer:
    """The timer of a key as it is now. ``created``: it is new, and not one that was moved."""

    timer: Timer
    created: bool


def decide(timer: Timer | None, wanted: SetByKey) -> NewTimer | Replacement:
    """Return the new timer, or the change of ``timer``, the one that the key has now.

    ``timer`` is None if the key has none. The key of a settled timer is free. If a new timer is
    returned while ``timer`` is in flight, that one must give its key up. Raises ``TimerInFlight``.
    """
    if timer is None or timer.next_attempt_at is None:
        return _bounded(wanted)
    # A lease counts even after its end: its sender may be slow and still be calling.
    if timer.lease is not None:
        if wanted.new_if_in_flight:
            return _bounded(wanted)
        raise TimerInFlight(
            f"The webhook of timer {timer.id} is on the wire right now; "
            '"if_in_flight": "new" sets another timer.'
        )
    return Replacement(timer, _replaced(timer, timer.next_attempt_at, wanted))


def _bounded(wanted: SetByKey) -> NewTimer:
    bound = wanted.new.no_later_than
    return (
        wanted.new if bound is None else replace(wanted.new, due_at=min(wanted.new.due_at, bound))
    )


def _replaced(timer: Timer, next_attempt_at: int, wanted: SetByKey) -> Timer:
    """Return ``timer`` with everything that a client sends replaced, and its attempts anew."""
    new, bound = wanted.new, _tightened(timer, wanted.bound_ms)
    at = new.due_at if bound is None else min(new.due_at, bound)
    return replace(
        timer,
        url=new.url,
        due_at=at,
        next_attempt_at=at,
        # Only an earlier time needs a wake-up of its own, under a new version. The wake-up of a
        # timer that was moved later finds it not due, and is put back.
        version=timer.version + (at < next_attempt_at),
        attempts=0,
        options=new.options,
        content=new.content,
        labels=new.labels,
        no_later_than=bound,
    )


def _tightened(timer: Timer, bound_ms: int | None) -> int | None:
    """Return the bound of ``timer`` (epoch ms) after a request with ``bound_ms``: never later."""
    if bound_ms is None:
        return timer.no_later_than
    # ``created_at`` was rounded down. Without the 1, a repeated request would tighten the bound.
    bound = timer.created_at + 1 + bound_ms
    return bound if timer.no_later_than is None else min(timer.no_later_than, bound)
