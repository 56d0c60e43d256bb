"""The timer: its identity, its states, and what is derived from them. No I/O.

Every moment is epoch milliseconds, UTC.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from chalicelib.domain.attempt_log import AttemptLog

DEFAULT_TENANT = "default"

MAX_NEAR_S = 900
"""Seconds, SQS's limit of ``DelaySeconds``. A wake-up farther ahead needs a schedule."""


class Status(str, enum.Enum):
    """Where a timer stands. ``PENDING`` is outstanding; the others are settled."""

    PENDING = "pending"
    FIRED = "fired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTimer:
    """A timer that was asked for and has no id yet.

    ``max_attempts`` and ``timeout_s`` narrow the service's own retry policy for this timer;
    ``on_failure_url`` is called once when the timer fails for good.
    """

    tenant: str
    url: str
    created_at: int
    due_at: int
    max_attempts: int | None = None
    timeout_s: int | None = None
    on_failure_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wakeup:
    """A hint that a timer wants attention at ``at``; void once its ``version`` is old."""

    tenant: str
    id: int
    version: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """One timer as it is stored.

    Outstanding ⇔ it has a ``next_attempt_at``. ``version`` rises with every retry and
    reschedule. A claim sets ``lease_until`` and a fresh ``token``; only the holder of that
    token may settle. ``attempts`` counts the recorded attempts since the timer was last
    scheduled, ``log`` tells of the latest ones. ``armed`` says whether a wake-up was registered
    when the row was written.
    """

    tenant: str
    id: int
    url: str
    created_at: int
    due_at: int
    status: Status = Status.PENDING
    version: int = 1
    attempts: int = 0
    next_attempt_at: int | None = None
    lease_until: int | None = None
    token: str | None = None
    settled_at: int | None = None
    armed: bool = True
    max_attempts: int | None = None
    timeout_s: int | None = None
    on_failure_url: str | None = None
    log: AttemptLog = ()

    @classmethod
    def first(cls, new: NewTimer, timer_id: int, *, armed: bool = True) -> Timer:
        """Return ``new`` as the outstanding timer ``timer_id``."""
        return cls(
            tenant=new.tenant,
            id=timer_id,
            url=new.url,
            created_at=new.created_at,
            due_at=new.due_at,
            next_attempt_at=new.due_at,
            armed=armed,
            max_attempts=new.max_attempts,
            timeout_s=new.timeout_s,
            on_failure_url=new.on_failure_url,
        )

    def wakeup(self) -> Wakeup:
        """Return the wake-up for the next attempt. Only outstanding timers have one."""
        if self.next_attempt_at is None:
            raise ValueError(f"timer {self.id} is settled: nothing wakes it")
        return Wakeup(tenant=self.tenant, id=self.id, version=self.version, at=self.next_attempt_at)

    def leased(self, now: int) -> bool:
        """Tell whether a sender holds this timer at ``now``."""
        return self.lease_until is not None and now < self.lease_until

    def time_left(self, now: float) -> int:
        """Return whole seconds until the timer is due, rounded up; 0 once expired, for ever.

        ``now`` may carry a fraction of a millisecond. Due times are rounded up to whole
        milliseconds when a timer is set, so the fraction is rounded up here too: a fresh timer
        of 30 s shows 30.
        """
        called = self.attempts or self.lease_until or self.log
        if called or self.status is not Status.PENDING or now >= self.due_at:
            return 0
        whole = int(-(-now // 1))
        return max(1, -(-(self.due_at - whole) // 1000))
