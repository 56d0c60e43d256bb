"""The log of a timer's attempts: one record per call.

The log is stored in the timer's row and written with it, so it is limited in entries and in size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_ATTEMPTS_KEPT = 20
"""Records kept, the latest ones. The default retry schedule makes ten attempts."""

MAX_ERROR_CHARACTERS = 120
"""Characters kept of an error message."""

SUCCESS = range(200, 300)
REDIRECT = range(300, 400)
GONE = 410
"""Statuses with a meaning of their own (RFC 9110); any other is a plain failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """The record of one call: when it began (epoch ms), how late, how long it took, the outcome.

    It has an HTTP ``status`` if the receiver responded, else an ``error``. ``notice`` marks a call
    to ``on_failure_url``.
    """

    at: int
    late_ms: int
    took_ms: int
    status: int | None = None
    error: str | None = None
    notice: bool = False

    @property
    def reason(self) -> str | None:
        """Why this call failed, in words a person can act on; None if it succeeded."""
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
"""Attempt records, oldest first."""


def extended(log: AttemptLog, record: AttemptRecord) -> AttemptLog:
    """Return ``log`` with one more record; the oldest is dropped if there are too many."""
    return (*log, record)[-MAX_ATTEMPTS_KEPT:]


def last_attempt(log: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """Return the record of the latest call of the webhook itself."""
    return next((record for record in reversed(log) if not record.notice), None)


def encode(log: AttemptLog) -> str:
    """Return ``log`` as a store keeps it: about 25 bytes for an attempt with a response."""
    return _encode([_fields(record) for record in log])


def decode(text: str | None) -> AttemptLog:
    """Return the log that ``encode`` wrote, an empty one for None."""
    if text is None:
        return ()
    entries = json.loads(text)
    return tuple(AttemptRecord(**dict(zip(_FIELDS, entry, strict=False))) for entry in entries)


_encode = json.JSONEncoder(separators=(",", ":")).encode
_UNPRINTABLE = re.compile(r"[^ -~]")
_FIELDS = ("at", "late_ms", "took_ms", "status", "error", "notice")


def _fields(record: AttemptRecord) -> list[object]:
    """Return the entry of a record; trailing fields with their default value are left out."""
    # A receiver may have influenced the text: no control characters, no half of a character.
    error = record.error and _UNPRINTABLE.sub("?", record.error)[:MAX_ERROR_CHARACTERS]
    fields: list[object] = [record.at, record.late_ms, record.took_ms, record.status]
    if record.notice:
        return [*fields, error, True]
    return fields if error is None else [*fields, error]
