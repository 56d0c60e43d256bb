"""What the oracle knows of each timer: what its client was promised, and what happened to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from chalicelib.domain.webhook import Outcome
from chalicelib.service.timers import TimerRequest
from tests.simulation.processes import Task


@dataclass(eq=False, slots=True)
class Removal:
    """One request to cancel or purge. ``refused``: the response said that nothing was removed."""

    purge: bool
    requested_at: float
    acknowledged_at: float | None = None
    refused: bool = False


@dataclass(eq=False, slots=True)
class SentWebhook:
    """One call to a receiver. ``outcome`` is what the sender saw of it."""

    started_at: float
    lateness_ms: float
    outcome: Outcome | None = None


@dataclass(eq=False, slots=True)
class Lease:
    """A claim that the store has carried out, whether or not its sender got the response."""

    token: str
    until: float
    claimed_at: float
    now: int
    """The time of the claim by its sender's clock."""
    settled: bool = False
    retried: bool = False
    """The settlement asked for another attempt."""
    sent: SentWebhook | None = None


@dataclass(eq=False, slots=True)
class Promise:
    """One request to create a timer, and everything that followed."""

    tenant: str
    url: str
    requested_at: float
    request: TimerRequest
    dues: list[tuple[float, int]]
    """Each due time that the timer has had, with the time since which it was valid."""
    not_before: int
    """No call may start before this: first the due time, then the time of each retry."""

    changed_at: float = 0.0
    """When it was last moved by its key, maybe to a time that had passed."""
    id: int | None = None
    acknowledged_at: float | None = None
    concluded: bool = False
    """The final outcome is recorded."""
    recorded: list[SentWebhook] = field(default_factory=list)
    """The calls whose outcome is recorded."""
    recorded_before: int = 0
    """How many of them were recorded before the latest replay."""
    failure_notices: int = 0
    seen_expired: bool = False
    """A reader was told that no time is left."""
    removals: list[Removal] = field(default_factory=list)
    key: str | None = None
    """The key under which a client set it, if any."""
    bound: int | None = None
    """The bound of a keyed timer that is stored (epoch ms)."""
    repeats: int = 0
    """How often its receiver asked for another call, and that is recorded."""
    leases: list[Lease] = field(default_factory=list)
    sent: list[SentWebhook] = field(default_factory=list)

    @property
    def due_at(self) -> int:
        """Return the latest due time that was written."""
        return self.dues[-1][1]

    def removed(self, at: float) -> Removal | None:
        """Return the removal that was acknowledged before ``at``, if any."""
        for removal in self.removals:
            if removal.acknowledged_at is not None and removal.acknowledged_at < at:
                return removal
        return None

    @property
    def must_exist(self) -> bool:
        """Return whether the timer was acknowledged and no request can have removed it."""
        return self.acknowledged_at is not None and all(each.refused for each in self.removals)

    def __str__(self) -> str:
        return f"timer {self.tenant}/{self.id} of {self.url}"


@dataclass(eq=False, slots=True)
class DeliveryProgress:
    """How far the delivery of one wake-up, in one task, has got."""

    lease: Lease | None = None
    dropped: bool = False
    """The claim was refused because this wake-up has nothing to do any more."""
    superseded: bool = False
    """The settlement was refused because another sender had claimed the timer."""
    unregistered: bool = False
    """A wake-up could not be registered."""


def progress_of(task: Task) -> DeliveryProgress:
    """Return the progress of the delivery that runs in ``task``."""
    if not isinstance(task.context, DeliveryProgress):
        task.context = DeliveryProgress()
    return task.context
