"""The rows of the SQLite store: their columns, and functions from a timer to a row and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chalicelib.domain.attempt_log import decode
from chalicelib.domain.optional_fields import NAMES, optional_fields, read_optional_fields
from chalicelib.domain.selection import Selection
from chalicelib.domain.timer import UNDELIVERED, Lease, Status, Timer

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
    "repeats",
    *NAMES,
)
"""A timer's columns, in the order in which ``timer_of`` reads them."""

_NEW_COLUMNS = _COLUMNS[:9]
"""The columns that every timer has before its first claim; the others are NULL."""

SELECTED = ", ".join(_COLUMNS)
"""The columns to select for ``timer_of``."""


def _insert(*columns: str) -> str:
    return f"INSERT INTO timers ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


_PLAIN_INSERT = _insert(*_NEW_COLUMNS)
_FULL_INSERT = _insert(*_NEW_COLUMNS, *NAMES)


def insert(timer: Timer) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that stores a timer that was never claimed, and its values."""
    values = (
        timer.tenant,
        timer.id,
        timer.url,
        timer.created_at,
        timer.due_at,
        timer.status.value,
        timer.version,
        timer.attempts,
        timer.next_attempt_at,
    )
    fields = optional_fields(timer)
    if not fields:  # most timers: fewer values to bind
        return _PLAIN_INSERT, values
    return _FULL_INSERT, (*values, *(fields.get(name) for name in NAMES))


_CHANGED_COLUMNS = ("url", "due_at", "version", "attempts", "next_attempt_at", *NAMES)
_REPLACEMENT = (
    f"UPDATE timers SET {', '.join(f'{name} = ?' for name in _CHANGED_COLUMNS)}, "
    "token = NULL, held_for = NULL WHERE tenant = ? AND id = ?"
)


def replacement(timer: Timer) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that replaces what the client of an outstanding timer sent."""
    fields = optional_fields(timer)
    return _REPLACEMENT, (
        timer.url,
        timer.due_at,
        timer.version,
        timer.attempts,
        timer.next_attempt_at,
        *(fields.get(name) for name in NAMES),
        timer.tenant,
        timer.id,
    )


def timer_of(row: Sequence[Any]) -> Timer:
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
        repeats,
        *optional,
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
        repeats=repeats,
        log=decode(log),
        # Nearly all timers have none.
        **({} if optional == _NOTHING else read_optional_fields(_named(optional))),
    )


_NOTHING: list[Any] = [None] * len(NAMES)


def _named(values: list[Any]) -> dict[str, Any]:
    return dict(zip(NAMES, values, strict=True))


def table_of(only: Selection, status: Status | None) -> str:
    """Return the table to select from; of two, the left one is read first.

    Failed and expired timers have indexes of their own, and so have labels. SQLite must be told
    to use them: it would read all timers of the tenant.
    """
    timers = f"timers INDEXED BY {status.value}" if status in UNDELIVERED else "timers"
    if only.label is None:
        return timers
    tables = (timers, "labels") if status in UNDELIVERED else ("labels", timers)
    return f"{' CROSS JOIN '.join(tables)} USING (tenant, id)"


def selecting(only: Selection) -> tuple[str, tuple[Any, ...]]:
    """Return the conditions of a selection, each with AND before it, and their values.

    They are for the table that ``table_of`` returns.
    """
    conditions: list[tuple[str, Any]] = []
    if only.label is not None:
        conditions.append(("label = ?", only.label))
    if only.url_prefix:
        # Not LIKE: a prefix may have its wildcards, and LIKE ignores case.
        conditions.append((f"substr(url, 1, {len(only.url_prefix)}) = ?", only.url_prefix))
    conditions += [
        (f"{column} {comparison} ?", value)
        for column, comparison, value in (
            ("due_at", ">=", only.due_from),
            ("due_at", "<", only.due_until),
            ("settled_at", ">=", only.failed_from),
            ("settled_at", "<", only.failed_until),
        )
        if value not in (0, math.inf)
    ]
    return "".join(f"AND {text} " for text, _ in conditions), tuple(v for _, v in conditions)
