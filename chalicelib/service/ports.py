"""What an engine must provide: a store, a waker and a sender. The service knows only these.

Stores are the truth and wake-ups are hints: a wake-up may be lost, early, late or doubled and
nothing breaks, because firing is decided by a conditional write on the timer's row.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.attempt_log import AttemptLog
from chalicelib.domain.timer import NewTimer, Status, Timer, Wakeup
from chalicelib.domain.webhook import Call, Outcome

Clock = Callable[[], float]
"""The wall clock: epoch milliseconds, UTC, with a fraction."""


class Metric(str, enum.Enum):
    """What the service counts, under the names that dashboards and alarms know."""

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


Observe = Callable[[Any], AbstractContextManager[None]]
"""Log and count what one invocation of a Lambda does, under the request id of its context."""


def unmetered(_metric: Metric, _value: float) -> None:
    """Note nothing: the meter of an engine without one."""


Threads = Callable[[int], Executor]
"""Make what carries out so many pieces of work side by side."""


def threads(count: int) -> Executor:
    """Make ``count`` threads: what production uses."""
    return ThreadPoolExecutor(count)


Arm = Callable[[Timer], bool]
"""Register the wake-up of a timer that is about to be written; tell whether it was registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to make one attempt: asked for with a fresh ``token``, until ``lease_until``."""

    wakeup: Wakeup
    token: str
    now: int
    lease_until: int


class Refusal(enum.Enum):
    """Why a claim failed, and so what becomes of the wake-up that asked for it."""

    VOID = "void"
    """Settled, gone, or of an old version: drop the wake-up."""
    LATER = "later"
    """Leased by another sender, or not yet due: wake again at ``Refused.again_at``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The answer to a claim that failed."""

    refusal: Refusal
    again_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What an attempt led to, written only if ``token`` still holds the timer.

    ``next_attempt_at`` is set exactly when ``status`` is pending: the timer is tried again
    then, under a new version. ``log`` is the timer's whole log, this attempt included: who holds
    the token is the only one to write it.
    """

    tenant: str
    id: int
    token: str
    now: int
    status: Status
    next_attempt_at: int | None = None
    armed: bool = True
    log: AttemptLog = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule:
    """A new time for a timer, under a new version and with its attempts counted anew.

    Written only while the timer is as it was seen: with this ``status`` and ``version``, and
    not claimed. ``at`` is when it is called, ``due_at`` what its clients see.
    """

    tenant: str
    id: int
    status: Status
    version: int
    now: int
    at: int
    due_at: int
    armed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Part of a list, highest id first. ``before`` continues it; None at its end.

    A page may be short, even empty, while there is more.
    """

    timers: Sequence[Timer]
    before: int | None


class TimerStore(Protocol):
    """Where timers live. Every method raises ``Unavailable`` when the store cannot do it now."""

    def identity(self) -> str:
        """Return the random name this store was born with."""

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        """Give ``new`` an id, arm it, and store it durably, in that order."""

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

        Returns the ``before`` that goes on, None when nothing is left below.
        """

    def due(self, now: int, limit: int) -> Sequence[Wakeup]:
        """Return timers whose next attempt is due, longest due first.

        Some may be held, where an index does not know: the claim decides.
        """

    def claim(self, claim: Claim) -> Timer | Refused:
        """Take the lease on a due timer of the wake-up's version and return it as claimed."""

    def settle(self, settlement: Settlement) -> bool:
        """Record what an attempt led to; False if the token no longer holds the timer.

        Repeated with the token of the last settle it changes nothing, and may say either.
        """

    def reschedule(self, change: Reschedule) -> Timer:
        """Make a timer outstanding at another time, durably, and return it as it is then.

        Raises ``TimerNotFound``, ``TimerInFlight`` while a sender holds it, and ``TimerChanged``
        when it is not as it was seen. Repeated, it changes nothing, and may say either.
        """

    def check(self) -> None:
        """Return if the store can be read and written; raise ``Unavailable`` otherwise."""


class Waker(Protocol):
    """Whoever remembers to look at a timer when its time comes."""

    def wake_at(self, wakeup: Wakeup) -> None:
        """Register a wake-up. Raises ``Unavailable`` when it could not be registered."""

    def forget(self, wakeup: Wakeup) -> None:
        """Drop a wake-up, best effort: one that comes all the same does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCutoffs:
    """What a sweep looks for (all epoch ms).

    Armed timers due before ``overdue``: their wake-up should have come by then. Unarmed timers
    due before ``upcoming``: none will come. Neither if woken since ``woken``.
    """

    overdue: int
    upcoming: int
    woken: int


class DueIndex(Protocol):
    """The timers that no wake-up reached, or will reach. Every method raises ``Unavailable``."""

    def shards(self) -> Sequence[int]:
        """Return the parts that can be looked through side by side."""

    def find(self, shard: int, cutoffs: SweepCutoffs) -> Iterator[Sequence[Wakeup]]:
        """Yield, a page at a time, what one part holds of ``cutoffs``; longest due first."""

    def mark(self, wakeup: Wakeup, cutoffs: SweepCutoffs, now: int) -> bool:
        """Note that ``wakeup`` was sent; False if it is void, or noted since ``woken``."""


class WakeQueue(Protocol):
    """The queue that a sweep fills. Every method raises ``Unavailable``."""

    def backlog(self) -> int:
        """Return roughly how many wake-ups wait to be received."""

    def wake_all(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Put wake-ups on the queue; return those it took."""


class ApiKeyStore(Protocol):
    """Where keys live. Every method raises ``Unavailable`` when the store cannot do it now."""

    def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256, None if there is none."""

    def add(self, key: ApiKey) -> None:
        """Store a new key durably."""

    def list(self) -> Sequence[ApiKey]:
        """Return every key, in no order."""

    def revoke(self, key_id: str) -> ApiKey:
        """Remove a key durably and return it as it was. Raises ``KeyNotFound``."""


class Sender(Protocol):
    """Makes one call. Never raises for what a receiver does: that is an ``Outcome``."""

    def send(self, call: Call) -> Outcome:
        """Send an empty POST and return what came of it within the deadline.

        Raises ``Unavailable`` when it could not even begin.
        """


class AsyncSender(Protocol):
    """A ``Sender`` for thousands of calls at once."""

    async def send(self, call: Call) -> Outcome:
        """Send an empty POST and return what came of it within the deadline."""


class Engine(Protocol):
    """One way of keeping and firing timers: the stores that the API's use cases need."""

    @property
    def timers(self) -> TimerStore:
        """Where timers are kept."""

    @property
    def api_keys(self) -> ApiKeyStore:
        """Where API keys are kept."""

    @property
    def waker(self) -> Waker:
        """Interim."""

    @property
    def request_budget_ms(self) -> float:
        """How long one request may go on removing timers."""
