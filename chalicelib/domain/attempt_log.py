"""The record of a timer's attempts: what each call came to. Pure.

It is bounded, in entries and in their size, because it lies in the timer's row and is written
with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_ATTEMPTS_KEPT = 20
"""How many calls are remembered, the latest ones. The default schedule makes ten attempts."""

MAX_ERROR_CHARACTERS = 120
"""Characters kept of what a library said."""

SUCCESS = range(200, 300)
REDIRECT = range(300, 400)
GONE = 410
"""Statuses that mean something of their own (RFC 9110); every other one is a plain failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One call: when it began (epoch ms), how late that was, how long it took, what came back.

    There is a ``status`` (HTTP) where the receiver answered, and an ``error`` where it did not.
    ``notice`` marks the call that tells of a timer's final failure.
    """

    at: int
    late_ms: int
    took_ms: int
    status: int | None = None
    error: str | None = None
    notice: bool = False

    @property
    def reason(self) -> str | None:
        """Why this call was no success, in words a person can act on; None if it was one."""
        if self.status is None:
            return self.error
        if self.status in SUCCESS:
            return None
        if self.status in REDIRECT:
            return f"HTTP {self.status}: redirects are not followed"
        if self.status == GONE:
            return f"HTTP {self.status}: the receiver wants no more calls"
        return f"HTTP {self.status}"


AttemptLog: TypeAlias = tuple[AttemptRecord, ...]
"""Attempts, oldest first."""


def extended(log: AttemptLog, attempt: AttemptRecord) -> AttemptLog:
    """Return ``log`` with one more attempt, the oldest dropped where there are too many."""
    return (*log, attempt)[-MAX_ATTEMPTS_KEPT:]


def last_attempt(log: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """Return the latest call of the webhook itself."""
    return next((attempt for attempt in reversed(log) if not attempt.notice), None)


def encode(log: AttemptLog) -> str:
    """Return ``log`` as a store keeps it: some 25 bytes an attempt that was answered."""
    return _encode([_fields(attempt) for attempt in log])


def decode(text: str | None) -> AttemptLog:
    """Return the log that ``encode`` wrote; an empty one where none was."""
    if text is None:
        return ()
    entries = json.loads(text)
    return tuple(AttemptRecord(**dict(zip(_FIELDS, entry, strict=False))) for entry in entries)


_encode = json.JSONEncoder(separators=(",", ":")).encode
_UNPRINTABLE = re.compile(r"[^ -~]")
_FIELDS = ("at", "late_ms", "took_ms", "status", "error", "notice")


def _fields(attempt: AttemptRecord) -> list[object]:
    """Return an entry; what is as by default at its end is left out."""
    # A receiver may have had its part in it: no control characters, no half of a character.
    error = attempt.error and _UNPRINTABLE.sub("?", attempt.error)[:MAX_ERROR_CHARACTERS]
    fields: list[object] = [attempt.at, attempt.late_ms, attempt.took_ms, attempt.status]
    if attempt.notice:
        return [*fields, error, True]
    return fields if error is None else [*fields, error]
