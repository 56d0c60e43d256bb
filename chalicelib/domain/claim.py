"""Claiming and settling: they let exactly one sender make an attempt.

A claim is a conditional write that takes the lease on a due timer. A settlement is a conditional
write that records the outcome, and applies only while the claim's token still holds the timer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from chalicelib.domain.attempt_log import AttemptLog
from chalicelib.domain.timer import Lease, Status, Timer, Wakeup


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request for the lease on the timer of ``wakeup`` at ``now`` (epoch ms).

    Every claim has a new token, so that a repeated write can recognise itself.
    """

    wakeup: Wakeup
    now: int
    lease: Lease


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim applied: its sender may make one attempt until ``lease`` ends."""

    timer: Timer
    lease: Lease


@dataclass(frozen=True, slots=True)
class NotYet:
    """The timer is not due, or another sender holds it: wake it again at ``at`` (epoch ms)."""

    at: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """The timer is settled, gone, or has a newer version: drop the wake-up."""


ClaimResult: TypeAlias = Claimed | NotYet | Superseded


def explain_refusal(claim: Claim, timer: Timer | None) -> ClaimResult:
    """Return the result of a claim whose write did not apply. ``timer`` is the timer as it is now.

    ``timer`` is None if there is no such timer.
    """
    if timer is None:
        return Superseded()
    # Our own token: the write was repeated because its response was lost, and its first try
    # applied. Without this test, the sender would take its own lease for another sender's.
    if timer.lease is not None and timer.lease.token == claim.lease.token:
        return Claimed(timer, timer.lease)
    if timer.next_attempt_at is None or timer.version != claim.wakeup.version:
        return Superseded()
    if timer.lease is None:
        return NotYet(timer.next_attempt_at)
    return NotYet(max(timer.next_attempt_at, timer.lease.until))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The outcome of an attempt. It is written only if ``token`` still holds the timer.

    ``version`` is the version that was claimed. ``attempts`` is the timer's count from now on.
    ``next_attempt_at`` (epoch ms) is the time of the next attempt, under the next version. It is
    set if and only if ``status`` is pending. The next attempt is a retry, or with ``repeat`` the
    first of another call that the receiver asked for, which is due then. ``log`` is the timer's
    whole log, this attempt included. Nobody else writes it while the token holds the timer.
    """

    tenant: str
    id: int
    version: int
    token: str
    now: int
    status: Status
    attempts: int
    next_attempt_at: int | None = None
    repeat: bool = False
    log: AttemptLog = ()

    def wakeup(self) -> Wakeup | None:
        """Return the wake-up of the next attempt, if there is one."""
        if self.next_attempt_at is None:
            return None
        return Wakeup(
            tenant=self.tenant, id=self.id, version=self.version + 1, at=self.next_attempt_at
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule:
    """A new time for a timer, under the next version.

    It applies only if the timer still has this ``status``, ``version`` and ``no_later_than``, and
    is not claimed. Times are epoch ms. ``at`` is the time of the next attempt, ``due_at`` the time
    that clients see, and ``replaces_at`` the time of the attempt that is replaced (None if the
    timer was settled). ``at`` and ``due_at`` differ when a failed timer is replayed. ``attempts``
    are those that count afterwards: none, unless a retry is only made earlier.
    """

    tenant: str
    id: int
    status: Status
    version: int
    now: int
    at: int
    due_at: int
    replaces_at: int | None
    no_later_than: int | None = None
    attempts: int = 0

    @classmethod
    def of(cls, timer: Timer, *, now: int, at: int, due_at: int, attempts: int = 0) -> Reschedule:
        """Return the change of ``timer``, which the caller has just read."""
        return cls(
            tenant=timer.tenant,
            id=timer.id,
            status=timer.status,
            version=timer.version,
            now=now,
            at=at,
            due_at=due_at,
            replaces_at=timer.next_attempt_at,
            no_later_than=timer.no_later_than,
            attempts=attempts,
        )

    def wakeup(self) -> Wakeup:
        """Return the wake-up of the new time."""
        return Wakeup(tenant=self.tenant, id=self.id, version=self.version + 1, at=self.at)

    def replaced(self) -> Wakeup | None:
        """Return the wake-up that the change makes void. Return None if the timer was settled."""
        if self.replaces_at is None:
            return None
        return Wakeup(tenant=self.tenant, id=self.id, version=self.version, at=self.replaces_at)
