"""The look-ups that may be under way at once, shared among tenants."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque

from chalicelib.domain.fair_share import fair_share


class LookupSlots:
    """A semaphore of which each tenant has at most a share, and in which tenants take turns."""

    def __init__(self, capacity: int, tenant_share: float) -> None:
        self._capacity = capacity
        self._share = tenant_share
        self._taken: Counter[str] = Counter()
        self._total = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, tenant: str) -> None:
        """Take a slot, for which this may wait."""
        if tenant not in self._waiting and self._has_room(tenant):
            self._take(tenant)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled in the moment in which its turn came: the slot is another's.
            if turn.done() and not turn.cancelled():
                self.release(tenant)
            raise

    def release(self, tenant: str) -> None:
        """Give a slot back."""
        self._taken[tenant] -= 1
        self._total -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
        while self._hand_out():
            pass

    def _hand_out(self) -> bool:
        """Give a free slot to the first tenant that waits and has room; return whether it did."""
        for tenant, turns in list(self._waiting.items()):
            while turns and turns[0].done():
                turns.popleft()
            if not turns:
                del self._waiting[tenant]
            elif self._has_room(tenant):
                self._take(tenant)
                turns.popleft().set_result(None)
                self._waiting.move_to_end(tenant)
                return True
        return False

    def _has_room(self, tenant: str) -> bool:
        taken = self._taken.get(tenant, 0)
        return taken < fair_share(self._capacity, self._total - taken, self._share)

    def _take(self, tenant: str) -> None:
        self._taken[tenant] += 1
        self._total += 1
