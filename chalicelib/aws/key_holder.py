"""The holders of keys: which timer an idempotency key, or the key of a keyed timer, stands for.

A key has an item of its own. It is written before the row of its timer, so it may name an id
without a row. That is one of two cases:

- The row is still to come, or its writer died before it. Another request with the key writes the
  row, under that id. This holds for ``FINISH_WITHIN_MS``, and no writer is slower.
- The timer is gone. Then the key is free, and the next request with it draws a new id. A
  request that removes such a young timer marks the item first, so that the id is not used twice.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import NewTimer, Timer

FINISH_WITHIN_MS = 60_000
"""How long an id without a row belongs to a request that is under way."""

PUT_WITHIN_MS = 30_000
"""The row is written this soon after its request was accepted, or not at all.

API Gateway gives a request 29 s (AWS limit). The rest is for clocks that differ.
"""

YOUNG_MS = 2 * FINISH_WITHIN_MS
"""The age below which the removal of a timer must be marked in the items of its keys."""


class IdTaken(Unavailable):
    """Another timer has the id, so the row cannot be written."""


class KeyKind(enum.Enum):
    """The kinds of key: of a request, and of a timer."""

    REQUEST = "I"
    TIMER = "K"


@dataclass(frozen=True, slots=True)
class KeyName:
    """One key of one tenant."""

    kind: KeyKind
    tenant: str
    key: str


def names_of(timer: NewTimer | Timer) -> list[KeyName]:
    """Return the names of the keys that a timer has: none, most of the time."""
    names = []
    if timer.idempotency is not None:
        names.append(KeyName(KeyKind.REQUEST, timer.tenant, timer.idempotency.key))
    if timer.key is not None:
        names.append(KeyName(KeyKind.TIMER, timer.tenant, timer.key))
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The timer that a key stands for.

    ``created_at`` and ``due_at`` (epoch ms) are those of the timer when it was set, and ``digest``
    is that of its request. ``expires_at`` is in epoch seconds. ``removed`` says that the timer had
    a row, and that it may be gone.
    """

    timer_id: int
    created_at: int
    due_at: int
    digest: bytes | None = None
    removed: bool = False
    expires_at: int = 0

    @classmethod
    def of(cls, timer: Timer) -> Holder:
        """Return the holder that stands for a new timer."""
        return cls(
            timer_id=timer.id,
            created_at=timer.created_at,
            due_at=timer.due_at,
            digest=None if timer.idempotency is None else timer.idempotency.digest,
        )

    def unfinished(self, now: float) -> bool:
        """Return whether the row of the timer, which is missing, may still be to come."""
        # A clock that was put back counts as an hour ago: the past says nothing then.
        return not self.removed and abs(now - self.created_at) < FINISH_WITHIN_MS
