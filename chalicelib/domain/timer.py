"""The timer: its identity, its options and its states.

Every time is epoch milliseconds, UTC.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from chalicelib.domain.attempt_log import AttemptLog
from chalicelib.domain.content import NO_CONTENT, Content
from chalicelib.domain.errors import TimerSettled

DEFAULT_TENANT = "default"

MAX_NEAR_S = 900
"""The longest delay of an SQS message, in seconds (AWS limit). Beyond it a schedule is needed."""


class Status(str, enum.Enum):
    """The state of a timer. A ``PENDING`` timer is outstanding; the others are settled.

    An ``EXPIRED`` timer was too late for its first call, by its own ``max_lateness_ms``.
    """

    PENDING = "pending"
    FIRED = "fired"
    FAILED = "failed"
    EXPIRED = "expired"


UNDELIVERED = (Status.FAILED, Status.EXPIRED)
"""The settled states of a timer whose webhook was not delivered. Such a timer can be replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOptions:
    """How one timer is to be delivered, within the limits of the service.

    ``max_attempts`` and ``timeout_s`` (seconds) can only lower the service's own limits.
    ``on_failure_url`` is called once when the timer has failed for good. ``retry_delays_ms`` are
    the delays before the second, third, … attempt, in place of the service's. A first call that
    cannot start within ``max_lateness_ms`` of its time is not made. The receiver of a
    ``repeatable`` timer may ask to be called again. Stores keep these fields by name
    (``optional_fields.py``).
    """

    max_attempts: int | None = None
    timeout_s: int | None = None
    on_failure_url: str | None = None
    retry_delays_ms: tuple[int, ...] | None = None
    max_lateness_ms: int | None = None
    repeatable: bool = False


NO_OPTIONS = DeliveryOptions()
"""The options of most timers: the service's own policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """The key of an idempotent request, and the SHA-256 of that request."""

    key: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTimer:
    """A timer that was accepted and has no id yet.

    ``labels`` are the client's, for filters. ``key`` is the client's own name of the timer; at most
    one outstanding timer of a tenant has it. ``no_later_than`` (epoch ms) bounds every later move
    of a keyed timer.
    """

    tenant: str
    url: str
    created_at: int
    due_at: int
    options: DeliveryOptions = NO_OPTIONS
    content: Content = NO_CONTENT
    labels: tuple[str, ...] = ()
    key: str | None = None
    no_later_than: int | None = None
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wakeup:
    """A hint that a timer needs attention at ``at``. It is void once its ``version`` is old.

    ``put_backs`` counts how often it came and nothing could be done, because AWS did not respond.
    """

    tenant: str
    id: int
    version: int
    at: int
    put_backs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The time up to which one sender may hold a timer. A settlement must show ``token``."""

    token: str
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """One timer as it is stored.

    A timer is outstanding if and only if it has a ``next_attempt_at``. ``version`` rises with
    every retry and reschedule. ``attempts`` counts the recorded attempts since the timer was
    last scheduled; ``log`` has the records of the latest ones. The fields of ``NewTimer`` have the
    same meaning here. ``repeats`` counts how often the receiver asked to be called again.
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
    lease: Lease | None = None
    settled_at: int | None = None
    options: DeliveryOptions = NO_OPTIONS
    content: Content = NO_CONTENT
    labels: tuple[str, ...] = ()
    key: str | None = None
    no_later_than: int | None = None
    idempotency: Idempotency | None = None
    repeats: int = 0
    log: AttemptLog = ()

    @classmethod
    def first(cls, new: NewTimer, timer_id: int) -> Timer:
        """Return ``new`` as the outstanding timer ``timer_id``."""
        return cls(
            tenant=new.tenant,
            id=timer_id,
            url=new.url,
            created_at=new.created_at,
            due_at=new.due_at,
            next_attempt_at=new.due_at,
            options=new.options,
            content=new.content,
            labels=new.labels,
            key=new.key,
            no_later_than=new.no_later_than,
            idempotency=new.idempotency,
        )

    def wakeup(self) -> Wakeup:
        """Return the wake-up for the next attempt. Raises ``ValueError`` for a settled timer."""
        if self.next_attempt_at is None:
            raise ValueError(f"timer {self.id} is settled: it has no next attempt")
        return Wakeup(tenant=self.tenant, id=self.id, version=self.version, at=self.next_attempt_at)

    def require_pending(self, verb: str = "cancelled") -> None:
        """Raise ``TimerSettled`` for a settled timer, which cannot be ``verb`` any more."""
        if self.status is not Status.PENDING:
            raise TimerSettled(f"Timer {self.id} has {self.status.value}; it cannot be {verb}.")

    def bounded(self, at: int) -> int:
        """Return ``at``, or the bound of the timer (``no_later_than``) if that is earlier."""
        return at if self.no_later_than is None else min(at, self.no_later_than)

    def leased(self, now: int) -> bool:
        """Return whether a sender holds this timer at ``now``."""
        return self.lease is not None and now < self.lease.until

    def too_late(self, now: float) -> bool:
        """Return whether it is too late at ``now`` (epoch ms) for the first call.

        Later calls are never too late. The lateness counts from the time that the first call was
        planned for: ``due_at``, or the time of a replay. Raises ``ValueError`` for a settled timer.
        """
        max_lateness_ms = self.options.max_lateness_ms
        if max_lateness_ms is None or self.attempts:
            return False
        return now > self.wakeup().at + max_lateness_ms

    def time_left(self, now: float) -> int:
        """Return whole seconds until the timer is due, rounded up; 0 for ever once it has expired.

        ``now`` may have a fraction of a millisecond.
        """
        # A timer that was ever called has expired, even if the clock has been put back since then.
        # The log of a repeated timer has the calls before the repeat too, so it does not count.
        called = self.attempts or self.lease or (self.log and not self.repeats)
        if called or self.status is not Status.PENDING or now >= self.due_at:
            return 0
        # ``due_at`` was rounded up to a whole millisecond. Without rounding ``now`` in the same way
        # a new timer of 30 s would show 31.
        whole = math.ceil(now)
        return max(1, -(-(self.due_at - whole) // 1000))
