"""Claims: which due timers are claimed next. Tenants take turns, within the budget of calls.

Within a tenant the earliest due timer comes first. A timer whose receiver has no room is held, so
that it is not in the way of the tenant's other timers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chalicelib.domain.claim import Claim, Claimed
from chalicelib.domain.target import receiver_of
from chalicelib.domain.timer import Lease
from chalicelib.embedded.egress import Egress
from chalicelib.embedded.store import DueTimer, SQLiteTimerStore
from chalicelib.embedded.turns import Turns
from chalicelib.service.ports import Clock

MAX_HELD = 200
"""The most timers that one round holds. More would delay requests of the API."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A claimed timer, whose call to ``receiver`` counts as in flight from now on."""

    claimed: Claimed
    receiver: str


@dataclass(slots=True)
class Round:
    """What one round has done. ``now`` is in epoch ms, ``limit`` is the most timers it claims."""

    now: int
    limit: int
    chosen: list[Chosen] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    # The tenants and receivers of claimed timers that were held.
    taken_from: list[tuple[str, str]] = field(default_factory=list)
    held: int = 0

    @property
    def room(self) -> int:
        """How many timers may still be claimed."""
        return self.limit - len(self.chosen)


class Claims:
    """Claims due timers, round by round. One round is one operation of the writer."""

    def __init__(
        self,
        store: SQLiteTimerStore,
        egress: Egress,
        turns: Turns,
        *,
        clock: Clock,
        lease_ms: int,
        token: Callable[[], str],
    ) -> None:
        """``token`` draws the token of a claim."""
        self._store = store
        self._egress = egress
        self._turns = turns
        self._clock = clock
        self._lease_ms = lease_ms
        self._token = token
        # The timers in flight in this process, by tenant and id.
        self._in_flight: set[tuple[str, int]] = set()

    def new_round(self, limit: int) -> Round:
        """Return a round that will claim at most ``limit`` timers."""
        # Rounded down, so that no timer is claimed before its time.
        return Round(int(self._clock()), limit)

    def carry_out(self, this: Round) -> None:
        """Claim due timers. If their write fails, call ``undo``."""
        tenants = self._turns.take(this.limit)
        this.tenants += tenants
        quantum = max(this.limit // max(len(tenants), 1), 1)
        while tenants and this.room and this.held < MAX_HELD:
            tenant = tenants.pop(0)
            if self._serve(this, tenant, min(quantum, this.room)):
                tenants.append(tenant)
        for tenant in tenants:
            self._turns.make_ready(tenant)

    def undo(self, this: Round) -> None:
        """Forget a round that was not written: its timers are still due, or still held."""
        for chosen in this.chosen:
            self.end(chosen, failed=None)
        for tenant, receiver in this.taken_from:
            self._turns.hold(tenant, receiver, 0)
            self._turns.release(receiver)
        for tenant in this.tenants:
            self._turns.note(tenant, this.now)

    def end(self, chosen: Chosen, *, failed: bool | None) -> bool:
        """Note that a call has ended; return whether more may be claimed because of that.

        ``failed`` is None if the receiver was not asked.
        """
        timer = chosen.claimed.timer
        self._in_flight.discard((timer.tenant, timer.id))
        self._egress.end(timer.tenant, chosen.receiver, failed=failed)
        return self._turns.call_ended(chosen.receiver)

    def _serve(self, this: Round, tenant: str, limit: int) -> bool:
        """Claim at most ``limit`` timers of ``tenant``; return whether it may have more to claim.

        Otherwise it is looked at again when its next timer is due, or when it has room.
        """
        room = min(limit, self._egress.tenant_room(tenant))
        if not room:
            self._turns.block(tenant, self._egress.tenant_wait_s(tenant))
            return False
        room -= self._claim_held(this, tenant, room)
        if not room or self._claim_next(this, tenant, room):
            return True
        next_due_at = self._store.next_due_at(tenant, this.now)
        if next_due_at is not None:
            self._turns.note(tenant, next_due_at)
        return False

    def _claim_held(self, this: Round, tenant: str, limit: int) -> int:
        """Claim held timers whose receivers have room again; return how many."""
        before = len(this.chosen)
        for receiver in self._turns.released(tenant):
            left = limit - (len(this.chosen) - before)
            if not left:
                break  # the receiver stays released, and the tenant ready
            room = min(left, self._egress.receiver_room(tenant, receiver))
            found = self._store.held(tenant, receiver, room)
            self._claim_or_put_back(this, found, receiver)
            if len(found) < room:
                self._turns.forget_held(tenant, receiver)
            elif not self._egress.receiver_room(tenant, receiver):
                self._turns.await_release(tenant, receiver)
                self._turns.hold(tenant, receiver, self._egress.receiver_wait_s(receiver))
        return len(this.chosen) - before

    def _claim_or_put_back(self, this: Round, held: Sequence[DueTimer], receiver: str) -> None:
        for timer in held:
            this.taken_from.append((timer.wakeup.tenant, receiver))
            # After the clock was put back, a held timer may not be due. The due index has it then.
            if not self._claim(this, timer, receiver):
                self._store.hold(timer.wakeup, None)
                self._turns.note(timer.wakeup.tenant, timer.wakeup.at)

    def _claim_next(self, this: Round, tenant: str, limit: int) -> bool:
        """Claim or hold due timers, earliest first; return whether there may be more."""
        free, more = self._due(this.now, tenant, limit)
        for timer in free:
            if not limit:
                return True
            receiver = receiver_of(timer.url)
            if self._must_wait(tenant, receiver):
                self._store.hold(timer.wakeup, receiver)
                self._turns.hold(tenant, receiver, self._egress.receiver_wait_s(receiver))
                this.held += 1
            elif self._claim(this, timer, receiver):
                limit -= 1
        return more

    def _must_wait(self, tenant: str, receiver: str) -> bool:
        """Tell whether ``receiver`` has no room, or whether earlier timers wait for it."""
        if self._turns.is_held(tenant, receiver):
            return True
        return not self._egress.receiver_room(tenant, receiver)

    def _claim(self, this: Round, timer: DueTimer, receiver: str) -> bool:
        lease = Lease(token=self._token(), until=this.now + self._lease_ms)
        result = self._store.claim(Claim(wakeup=timer.wakeup, now=this.now, lease=lease))
        if not isinstance(result, Claimed):
            return False
        self._in_flight.add((timer.wakeup.tenant, timer.wakeup.id))
        self._egress.start(timer.wakeup.tenant, receiver)
        this.chosen.append(Chosen(result, receiver))
        return True

    def _due(self, now: int, tenant: str, limit: int) -> tuple[list[DueTimer], bool]:
        """Return due timers that are not in flight in this process, and whether there may be more.

        A clock that was put forward may have ended the lease of a timer in flight.
        """
        read_limit = limit
        while True:
            found = self._store.due(tenant, now, read_limit)
            free = [
                timer
                for timer in found
                if (timer.wakeup.tenant, timer.wakeup.id) not in self._in_flight
            ]
            if len(found) < read_limit or len(free) >= limit:
                return free[:limit], len(found) == read_limit
            # Timers in flight took the places of others: read past all of them.
            read_limit += len(self._in_flight)
