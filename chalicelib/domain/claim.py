"""Claiming and settling: how one sender, and no other, gets to make an attempt.

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
    """A request for the lease on the timer that ``wakeup`` names, as it is at ``now``.

    The token of ``lease`` is fresh, so that a repeated write can recognise itself.
    """

    wakeup: Wakeup
    now: int
    lease: Lease


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim applied: one attempt may be made until ``lease`` ends."""

    timer: Timer
    lease: Lease


@dataclass(frozen=True, slots=True)
class NotYet:
    """The timer is not due, or another sender holds it: wake it again at ``at``."""

    at: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """The timer is settled, gone, or has a newer version: drop the wake-up."""


ClaimResult: TypeAlias = Claimed | NotYet | Superseded


def explain_refusal(claim: Claim, timer: Timer | None) -> ClaimResult:
    """Return what a claim whose write did not apply means, given the timer as it is now.

    A timer that bears the claim's own token was claimed by the first try of a repeated write.
    """
    if timer is None:
        return Superseded()
    if timer.lease is not None and timer.lease.token == claim.lease.token:
        return Claimed(timer, timer.lease)
    if timer.next_attempt_at is None or timer.version != claim.wakeup.version:
        return Superseded()
    lease_end = timer.lease.until if timer.lease is not None else 0
    return NotYet(max(timer.next_attempt_at, lease_end))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The outcome of an attempt, written only if ``token`` still holds the timer.

    ``version`` is the one that was claimed. ``next_attempt_at`` is set exactly when ``status``
    is pending: the timer is tried again then, under the next version. ``log`` is the timer's
    whole log, this attempt included: only the holder of the token writes it.
    """

    tenant: str
    id: int
    version: int
    token: str
    now: int
    status: Status
    next_attempt_at: int | None = None
    log: AttemptLog = ()

    def retry(self) -> Wakeup | None:
        """Return the wake-up of the next attempt, if there is one."""
        if self.next_attempt_at is None:
            return None
        return Wakeup(
            tenant=self.tenant, id=self.id, version=self.version + 1, at=self.next_attempt_at
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule:
    """A new time for a timer, under the next version and with its attempts counted anew.

    It applies only while the timer is as it was seen: with this ``status`` and ``version``, and
    not claimed. ``at`` is when the timer is called, ``due_at`` what its clients see, and
    ``replaces_at`` when it would have been called otherwise (None if it was settled).
    """

    tenant: str
    id: int
    status: Status
    version: int
    now: int
    at: int
    due_at: int
    replaces_at: int | None

    @classmethod
    def of(cls, timer: Timer, *, now: int, at: int, due_at: int) -> Reschedule:
        """Return the change of ``timer`` as it was seen."""
        return cls(
            tenant=timer.tenant,
            id=timer.id,
            status=timer.status,
            version=timer.version,
            now=now,
            at=at,
            due_at=due_at,
            replaces_at=timer.next_attempt_at,
        )

    def wakeup(self) -> Wakeup:
        """Return the wake-up of the new time."""
        return Wakeup(tenant=self.tenant, id=self.id, version=self.version + 1, at=self.at)

    def replaced(self) -> Wakeup | None:
        """Return the wake-up that the change makes void, if the timer was outstanding."""
        if self.replaces_at is None:
            return None
        return Wakeup(tenant=self.tenant, id=self.id, version=self.version, at=self.replaces_at)
