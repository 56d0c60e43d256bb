"""The log of a timer's attempts: one record per call.

The log is stored in the timer's row and written with it, so it is limited in entries and in size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

MAX_ATTEMPTS_KEPT = 20
"""The latest records are kept. The default retry schedule makes ten attempts."""

MAX_ERROR_CHARACTERS = 120
"""Characters kept of an error message."""

# The statuses (RFC 9110) that are treated in a special way. Any other is a failure to be retried.
SUCCESS = range(200, 300)
REDIRECT = range(300, 400)
GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """The record of one call.

    ``at`` is when the call started (epoch ms, UTC), ``late_ms`` is its lateness, and ``took_ms``
    its duration. It has an HTTP ``status`` if the receiver responded, else an ``error``.
    ``notice`` marks a failure notice, which is a call to ``on_failure_url``. ``retry_after`` is
    what a failed response asked for (seconds). ``response`` is the beginning of its body.
    """

    at: int
    late_ms: int
    took_ms: int
    status: int | None = None
    error: str | None = None
    notice: bool = False
    retry_after: int | None = None
    response: str | None = field(default=None, repr=False)

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
    if record.response is not None:
        # Only the latest is kept: each has up to 256 bytes, and the log lies in the timer's row.
        log = tuple(replace(old, response=None) if old.response else old for old in log)
    return (*log, record)[-MAX_ATTEMPTS_KEPT:]


def last_attempt(log: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """Return the record of the latest call of the webhook itself."""
    return next((record for record in reversed(log) if not record.notice), None)


def encode(log: AttemptLog) -> str:
    """Return ``log`` as the JSON that stores keep: about 25 bytes per call with a response."""
    return _to_json([_fields(record) for record in log])


def decode(text: str | None) -> AttemptLog:
    """Return the log that ``encode`` wrote. Return an empty log for None."""
    if text is None:
        return ()
    entries = json.loads(text)
    # An entry may have fewer fields than ``_FIELDS``, because ``encode`` leaves out trailing ones.
    # It may have more, if a newer version wrote it; those are ignored.
    return tuple(AttemptRecord(**dict(zip(_FIELDS, entry, strict=False))) for entry in entries)


_to_json = json.JSONEncoder(separators=(",", ":")).encode
_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")

# The order is part of the stored format. A new field goes to the end.
_FIELDS = ("at", "late_ms", "took_ms", "status", "error", "notice", "retry_after", "response")
_DEFAULTS = (None, False, None, None)
"""The default values of the fields behind those that every entry has."""


def _fields(record: AttemptRecord) -> list[object]:
    """Return the entry of a record without the trailing fields that have their default value."""
    # A receiver can put any text into an error. Control characters could harm a terminal, and one
    # byte per character makes the limit a limit in bytes too.
    error = record.error and _NOT_PRINTABLE_ASCII.sub("?", record.error)[:MAX_ERROR_CHARACTERS]
    fields: list[object] = [record.at, record.late_ms, record.took_ms, record.status]
    rest: list[object] = [error, record.notice, record.retry_after, record.response]
    while rest and rest[-1] == _DEFAULTS[len(rest) - 1]:
        rest.pop()
    return fields + rest
