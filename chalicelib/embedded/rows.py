"""The rows of the SQLite store: their columns, and functions from a timer to a row and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from chalicelib.domain.attempt_log import decode
from chalicelib.domain.timer import NO_OPTIONS, DeliveryOptions, Lease, Status, Timer

_OPTIONS = tuple(option.name for option in fields(DeliveryOptions))
_COLUMNS = (
    "tenant",
    "id",
    "url",
    "created_at",
    "due_at",
    "status",
    "version",
    "attempts",
    "next_attempt_at",
    "lease_until",
    "token",
    "settled_at",
    "log",
    *_OPTIONS,
)
"""A timer's columns, in the order in which ``timer_of`` reads them."""

_NEW_COLUMNS = (*_COLUMNS[:9], *_OPTIONS)
"""The columns that a timer has before its first claim; the others are NULL."""

SELECTED = ", ".join(_COLUMNS)
"""The columns to select for ``timer_of``."""

INSERT = (
    f"INSERT INTO timers ({', '.join(_NEW_COLUMNS)}) VALUES ({', '.join('?' * len(_NEW_COLUMNS))})"
)


def new_row(timer: Timer) -> tuple[Any, ...]:
    """Return the values of ``INSERT`` for a timer that was never claimed."""
    options = timer.options
    return (
        timer.tenant,
        timer.id,
        timer.url,
        timer.created_at,
        timer.due_at,
        timer.status.value,
        timer.version,
        timer.attempts,
        timer.next_attempt_at,
        *(getattr(options, name) for name in _OPTIONS),
    )


def timer_of(row: tuple[Any, ...]) -> Timer:
    """Return the timer in a row with the ``SELECTED`` columns."""
    (
        tenant,
        timer_id,
        url,
        created_at,
        due_at,
        status,
        version,
        attempts,
        next_attempt_at,
        lease_until,
        token,
        settled_at,
        log,
        *options,
    ) = row
    return Timer(
        tenant=tenant,
        id=timer_id,
        url=url,
        created_at=created_at,
        due_at=due_at,
        status=Status(status),
        version=version,
        attempts=attempts,
        next_attempt_at=next_attempt_at,
        lease=None if lease_until is None else Lease(token=token, until=lease_until),
        settled_at=settled_at,
        options=_options(options),
        log=decode(log),
    )


def _options(values: Sequence[Any]) -> DeliveryOptions:
    # Nearly all timers have no options: one shared object saves time and memory.
    if all(value is None for value in values):
        return NO_OPTIONS
    return DeliveryOptions(**dict(zip(_OPTIONS, values, strict=True)))
