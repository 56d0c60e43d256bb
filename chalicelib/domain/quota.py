"""The quota of what each tenant may have stored: timers, and the bytes of what clients sent."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.errors import QuotaExceeded
from chalicelib.domain.optional_fields import SIZED, optional_fields
from chalicelib.domain.timer import NewTimer, Timer


@dataclass(frozen=True, slots=True)
class Stored:
    """What a tenant has stored: timers of any status, and their bytes (``size_of``)."""

    timers: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that each tenant may have stored; None is no limit."""

    timers: int | None = None
    bytes: int | None = None

    def require_room(self, stored: Stored, new: NewTimer) -> None:
        """Return if a tenant that has ``stored`` may store ``new``. Raises ``QuotaExceeded``."""
        if self.timers is not None and stored.timers >= self.timers:
            raise QuotaExceeded(f"At most {self.timers:,} timers may be stored. {_WAY_OUT}")
        if self.bytes is not None and stored.bytes + size_of(new) > self.bytes:
            raise QuotaExceeded(f"At most {self.bytes:,} bytes of timers may be stored. {_WAY_OUT}")

    def require_room_to_replace(self, stored: Stored, before: Timer, after: Timer) -> None:
        """Return if a tenant that has ``stored`` may replace a timer. Raises ``QuotaExceeded``."""
        more = size_of(after) - size_of(before)
        if self.bytes is not None and more > 0 and stored.bytes + more > self.bytes:
            raise QuotaExceeded(f"At most {self.bytes:,} bytes of timers may be stored. {_WAY_OUT}")


UNLIMITED = Quota()

_WAY_OUT = "Cancel some, or wait until timers that have fired are removed."


def size_of(new: NewTimer | Timer) -> int:
    """Return the bytes that count towards the quota: URLs, bodies, headers and names in UTF-8."""
    fields = optional_fields(new)
    sized = [fields[name] for name in SIZED if name in fields]
    return len(new.url.encode()) + sum(
        len(value.encode() if isinstance(value, str) else value)
        for value in sized
        if not isinstance(value, int)
    )
