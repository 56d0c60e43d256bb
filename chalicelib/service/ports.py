"""Ports: what the use cases need of an engine.

A store keeps the truth, and a wake-up is only a hint. A wake-up may be lost, early, late or
doubled and nothing breaks, because a conditional write on the timer's row decides who fires it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.claim import Claim, ClaimResult, Reschedule, Settlement
from chalicelib.domain.timer import NewTimer, Status, Timer, Wakeup
from chalicelib.domain.webhook import Call, Outcome

Clock = Callable[[], float]
"""The wall clock: epoch milliseconds, UTC, with a fraction."""


class Metric(str, enum.Enum):
    """The metrics, under the names that dashboards and alarms use."""

    CREATED = "Created"
    UNARMED = "Unarmed"
    FIRED = "Fired"
    FAILED = "Failed"
    RETRIED = "Retried"
    LATENESS_MS = "LatenessMs"
    SWEPT = "Swept"
    OVERDUE_MS = "OverdueMs"
    DROPPED = "Dropped"


Meter = Callable[[Metric, float], None]
"""Note one value of a metric."""


def unmetered(_metric: Metric, _value: float) -> None:
    """Note nothing: the meter of an engine that has none."""


class Telemetry(Protocol):
    """The log and the metrics of a process."""

    def meter(self, metric: Metric, value: float) -> None:
        """Note one value of a metric."""

    def observe(self, context: Any) -> AbstractContextManager[None]:
        """Log and count one invocation of a Lambda, under the request id of ``context``."""


class NoTelemetry:
    """Neither logs nor counts: the telemetry of a process that is no Lambda."""

    def meter(self, metric: Metric, value: float) -> None:
        """Note nothing."""

    def observe(self, context: Any) -> AbstractContextManager[None]:
        """Observe nothing."""
        return nullcontext()


Threads = Callable[[int], Executor]
"""Make an executor that carries out so many pieces of work side by side."""


def threads(count: int) -> Executor:
    """Make ``count`` threads: the executor of production."""
    return ThreadPoolExecutor(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Part of a list, highest id first. ``before`` continues it; it is None at the end.

    A page may be short, even empty, while there is more.
    """

    timers: Sequence[Timer]
    before: int | None


class TimerStore(Protocol):
    """The timers as the API sees them. Every method raises ``Unavailable`` on a fault."""

    def create(self, new: NewTimer) -> Timer:
        """Give ``new`` an id and store it durably. Raises ``RateLimited``."""

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""

    def list(self, tenant: str, *, before: int | None, status: Status | None, limit: int) -> Page:
        """Return timers with an id below ``before``, highest first, at most ``limit``."""

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove one timer durably and return it as it was.

        Raises ``TimerNotFound``, and ``TimerInFlight`` while a sender holds it.
        """

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers below ``before``, highest first, whatever their state.

        Returns the ``before`` that continues, None when nothing is left below.
        """

    def reschedule(self, change: Reschedule) -> Timer:
        """Make a timer outstanding at another time, durably, and return it as it is then.

        Raises ``TimerNotFound``, ``TimerInFlight`` while a sender holds it, and ``TimerChanged``
        when it is not as it was seen. A repeated change has no effect, and may do either.
        """

    def check(self) -> None:
        """Return if the store can be read and written; raise ``Unavailable`` otherwise."""


class ClaimStore(Protocol):
    """The timers as a delivery sees them. Every method raises ``Unavailable`` on a fault."""

    def identity(self) -> str:
        """Return the random name that this store was given when it was made."""

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""

    def claim(self, claim: Claim) -> ClaimResult:
        """Take the lease on a due timer of the wake-up's version."""

    def settle(self, settlement: Settlement) -> bool:
        """Record the outcome of an attempt; return False if the token no longer holds the timer.

        A settlement repeated with the token of the last one has no effect, and may return either.
        """


class Wakeups(Protocol):
    """Registers wake-ups: hints that reach the delivery at about the given time."""

    def wake_at(self, wakeup: Wakeup) -> None:
        """Register a wake-up. Raises ``Unavailable`` when it could not be registered."""


class WakeQueue(Protocol):
    """The queue that a sweep fills. Every method raises ``Unavailable`` on a fault."""

    def backlog(self) -> int:
        """Return roughly how many wake-ups are ready to be received."""

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Put wake-ups on the queue; return those it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCutoffs:
    """Which timers a sweep looks for (all epoch ms).

    Armed timers due before ``overdue``, because their wake-up should have come by then. Unarmed
    timers due before ``upcoming``, because no wake-up will come. Neither if woken since ``woken``.
    """

    overdue: int
    upcoming: int
    woken: int


class DueIndex(Protocol):
    """The index of outstanding timers, as a sweep reads it. Methods raise ``Unavailable``."""

    def shards(self) -> Sequence[int]:
        """Return the shards, which can be read side by side."""

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        """Yield the wake-ups of one shard within ``cutoffs``, a page at a time, earliest first."""

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> bool:
        """Note that ``wakeup`` was sent; return False if it is void, or was noted already."""


class ApiKeyStore(Protocol):
    """Where API keys are kept. Every method raises ``Unavailable`` on a fault."""

    def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256, None if there is none."""

    def add(self, key: ApiKey) -> None:
        """Store a new key durably."""

    def list(self) -> Sequence[ApiKey]:
        """Return every key, in no order."""

    def revoke(self, key_id: str) -> ApiKey:
        """Remove a key durably and return it as it was. Raises ``KeyNotFound``."""


class Sender(Protocol):
    """Makes one call. What a receiver does is never an exception: it is an ``Outcome``."""

    def send(self, call: Call) -> Outcome:
        """Send the call and return its outcome within the deadline.

        Raises ``Unavailable`` when the call could not even begin.
        """


class AsyncSender(Protocol):
    """A ``Sender`` for thousands of calls at once on one event loop."""

    async def send(self, call: Call) -> Outcome:
        """Send the call and return its outcome within the deadline."""


class Engine(Protocol):
    """One way to keep timers and to fire them: the stores that the API's use cases need."""

    @property
    def timers(self) -> TimerStore:
        """The store of timers."""

    @property
    def api_keys(self) -> ApiKeyStore:
        """The store of API keys."""

    @property
    def request_budget_ms(self) -> float:
        """How long one request may go on working, in milliseconds."""
