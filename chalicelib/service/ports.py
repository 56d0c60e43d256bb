"""Ports: the interfaces that the use cases need from an engine.

The store is the truth, and a wake-up is only a hint. A wake-up may be lost, early, late or doubled
without harm, because a conditional write on the timer's row decides which sender fires it.
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
from chalicelib.domain.errors import TimersError
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.keyed import KeyedTimer, SetByKey
from chalicelib.domain.selection import EVERYTHING, DuePosition, Selection
from chalicelib.domain.timer import Idempotency, NewTimer, Status, Timer, Wakeup
from chalicelib.domain.webhook import Call, Outcome

Clock = Callable[[], float]
"""The wall clock: epoch milliseconds, UTC, with a fraction."""


class Metric(str, enum.Enum):
    """The metrics, under the names that dashboards and alarms use."""

    CREATED = "Created"
    UNARMED = "Unarmed"
    FIRED = "Fired"
    FAILED = "Failed"
    EXPIRED = "Expired"
    RETRIED = "Retried"
    LATENESS_MS = "LatenessMs"
    SWEPT = "Swept"
    OVERDUE_MS = "OverdueMs"
    DROPPED = "Dropped"


Meter = Callable[[Metric, float], None]
"""Add one value to a metric."""


def unmetered(_metric: Metric, _value: float) -> None:
    """Do nothing: the meter of an engine without metrics."""


class Telemetry(Protocol):
    """The log and the metrics of a process."""

    def meter(self, metric: Metric, value: float) -> None:
        """Add one value to a metric."""

    def observe(self, context: Any) -> AbstractContextManager[None]:
        """Log and count one invocation of a Lambda, under the request id of ``context``."""


class NoTelemetry:
    """The telemetry of a process that is not a Lambda. It does nothing."""

    def meter(self, metric: Metric, value: float) -> None:
        """Do nothing."""

    def observe(self, context: Any) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


Threads = Callable[[int], Executor]
"""Return an executor that carries out the given number of calls at once."""


def thread_pool(count: int) -> Executor:
    """Return an executor with ``count`` threads. Tests use other executors."""
    return ThreadPoolExecutor(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Part of a list, highest id first.

    ``before`` continues the list: the next page has ids below it. It is None at the end. A page
    may be short, even empty, although the list continues.
    """

    timers: Sequence[Timer]
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuePage:
    """Part of a list of outstanding timers, the next to be called first, with their positions.

    ``after`` continues the list. It is None at the end. A page may be short, even empty, although
    the list continues.
    """

    timers: Sequence[Timer]
    positions: Sequence[DuePosition]
    after: DuePosition | None


class TimerStore(Protocol):
    """The timers, as the API uses them.

    Every method raises ``Unavailable`` if the store cannot be reached or cannot write.
    """

    def create(self, new: NewTimer) -> Timer:
        """Give ``new`` an id and store it durably. Raises ``RateLimited``."""

    def create_once(self, new: NewTimer) -> SetOnce:
        """Do the same as ``create``, unless a timer of the tenant has the idempotency key.

        Then that timer is returned; it counts neither in the rate nor in the quota. Several equal
        requests at once set one timer. Raises ``IdempotencyKeyReused`` if the
        key was used for another request, and what ``create`` raises.
        """

    def find_once(self, tenant: str, wanted: Idempotency) -> SetOnce | None:
        """Return what ``create_once`` returned for this request; None if there is no such timer.

        Raises ``IdempotencyKeyReused``.
        """

    def set_by_key(self, wanted: SetByKey) -> KeyedTimer:
        """Set the timer of a key, or move it, durably and in one atomic step (``domain/keyed.py``).

        Raises ``TimerInFlight``, ``TimerChanged`` while other requests keep changing it, and what
        ``create`` raises.
        """

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""

    def get_by_key(self, tenant: str, key: str) -> Timer:
        """Return the timer of a key, the latest that had it. Raises ``TimerNotFound``."""

    def create_many(self, news: Sequence[NewTimer]) -> Sequence[SetOnce | TimersError]:
        """Store each timer durably, or refuse it, on its own; return the results in order.

        They are of one tenant. One with an idempotency key is stored as ``create_once`` does.
        """

    def find_many(self, tenant: str, ids: Sequence[int]) -> Sequence[Timer]:
        """Return those timers of ``ids`` that exist, in no order."""

    def list(
        self,
        tenant: str,
        *,
        before: int | None,
        status: Status | None,
        limit: int,
        only: Selection = EVERYTHING,
    ) -> Page:
        """Return selected timers with an id below ``before``, highest first, at most ``limit``."""

    def list_due(
        self, tenant: str, *, after: DuePosition | None, only: Selection, limit: int
    ) -> DuePage:
        """Return outstanding timers behind ``after``, the next to be called first.

        A timer in flight is listed at the end of its lease.
        """

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Remove a pending timer durably and return it as it was.

        Raises ``TimerNotFound``, ``TimerSettled`` if it has fired or failed, and ``TimerInFlight``
        while a sender holds it. A timer whose lease has ended can be removed: its sender settles
        nothing afterwards.
        """

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Remove up to ``limit`` timers of any state below ``before``, highest first.

        Returns the ``before`` of the next call, None if no timer is left below.
        """

    def reschedule(self, change: Reschedule) -> Timer:
        """Give a timer another time, durably, which makes it outstanding. Return it as changed.

        Raises ``TimerNotFound``, ``TimerInFlight`` while a sender holds it, ``TimerChanged`` if it
        has not the status and version of ``change``, and ``RateLimited``. A repeated change has no
        effect. It may return the timer or raise.
        """

    def check(self) -> None:
        """Return if the store is ready, else raise ``Unavailable``."""


class ClaimStore(Protocol):
    """The timers, as a delivery uses them.

    Every method raises ``Unavailable`` if the store cannot be reached or cannot write.
    """

    def identity(self) -> str:
        """Return the random name of this store. It never changes."""

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""

    def claim(self, claim: Claim) -> ClaimResult:
        """Take the lease on a due timer of the wake-up's version."""

    def settle(self, settlement: Settlement) -> bool:
        """Record the outcome of an attempt; return False if the token no longer holds the timer.

        A repeated settlement has no effect. It may return True or False.
        """


class Wakeups(Protocol):
    """Registers wake-ups: hints that reach the delivery at about the given time."""

    def wake_at(self, wakeup: Wakeup) -> None:
        """Register a wake-up. Raises ``Unavailable`` if that is not possible."""


class WakeQueue(Protocol):
    """The queue that a sweep fills. Every method raises ``Unavailable`` if it is unreachable."""

    def backlog(self) -> int:
        """Return the approximate number of wake-ups that are ready to be received."""

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Put wake-ups on the queue; return those that it accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCutoffs:
    """The limits of a sweep's search (epoch ms).

    A sweep finds armed timers due by ``overdue``, because their wake-up should have come already.
    It finds unarmed timers due by ``upcoming``, because no wake-up will come. It skips timers that
    a sweep has woken at or after ``woken``.
    """

    overdue: int
    upcoming: int
    woken: int


class DueIndex(Protocol):
    """The index of outstanding timers, as a sweep uses it.

    Every method raises ``Unavailable`` if the store cannot be reached.
    """

    def shards(self) -> Sequence[int]:
        """Return the shards, which can be read side by side."""

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        """Yield the wake-ups of one shard within ``cutoffs``, a page at a time, earliest first."""

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> None:
        """Note that ``wakeup`` was sent at ``now``, unless it is void or was noted already."""


class ApiKeyStore(Protocol):
    """The API keys. Every method raises ``Unavailable`` if the store cannot be reached."""

    def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256, None if there is none."""

    def add(self, key: ApiKey) -> None:
        """Store a new key durably."""

    def list(self) -> Sequence[ApiKey]:
        """Return every key, in no order."""

    def revoke(self, key_id: str) -> ApiKey:
        """Remove a key durably and return it as it was. Raises ``KeyNotFound``."""


class Sender(Protocol):
    """Makes one call. A failure of the receiver is an ``Outcome``, never an exception."""

    def send(self, call: Call) -> Outcome:
        """Send the call and return its outcome within the deadline.

        Raises ``Unavailable`` if the call could not begin.
        """


class AsyncSender(Protocol):
    """A ``Sender`` for thousands of calls at once, on one event loop."""

    async def send(self, call: Call) -> Outcome:
        """Send the call and return its outcome within the deadline."""


class Engine(Protocol):
    """One way to keep and fire timers. The use cases of the API need these parts of it."""

    @property
    def timers(self) -> TimerStore:
        """The store of timers."""

    @property
    def api_keys(self) -> ApiKeyStore:
        """The store of API keys."""

    @property
    def request_budget_ms(self) -> float:
        """How long one request of the API may take, in milliseconds."""
