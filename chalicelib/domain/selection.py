"""A selection of timers: by label, by the start of their URL, and by their times."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chalicelib.domain.timer import Timer


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Selects timers to which every given condition applies.

    Times are epoch ms; from is included, until is not.

    ``failed_from`` and ``failed_until`` select timers that failed or expired in that time.
    """

    label: str | None = None
    url_prefix: str = ""
    due_from: float = 0
    due_until: float = math.inf
    failed_from: float = 0
    failed_until: float = math.inf

    def match(self, timer: Timer) -> bool:
        """Return whether ``timer`` is selected."""
        if self.label is not None and self.label not in timer.labels:
            return False
        if not timer.url.startswith(self.url_prefix):
            return False
        if not self.due_from <= timer.due_at < self.due_until:
            return False
        return self._failed_in_time(timer)

    def _failed_in_time(self, timer: Timer) -> bool:
        if (self.failed_from, self.failed_until) == (0, math.inf):
            return True
        settled_at = timer.settled_at
        return settled_at is not None and self.failed_from <= settled_at < self.failed_until


EVERYTHING = Selection()
"""Selects all timers."""


_HIGHEST_ID = 2**63 - 1
"""The largest integer of SQLite, and the highest id that a cursor can have."""


@dataclass(frozen=True, slots=True, order=True)
class DuePosition:
    """A place in the list of outstanding timers by their next time (epoch ms), then by id."""

    at: int
    id: int

    @classmethod
    def behind(cls, at: int) -> DuePosition:
        """Return the place behind every timer of the time ``at``."""
        return cls(at, _HIGHEST_ID)

    @property
    def rest_at(self) -> int:
        """The earliest time of a timer behind this place."""
        return self.at + 1 if self.id == _HIGHEST_ID else self.at
