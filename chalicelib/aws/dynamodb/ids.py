"""Ids from leased blocks (hi-lo): one counter per tenant, written once per block.

A single counter item would cap the service at the 1,000 writes a second of one partition. So a
process leases a block of ids at a time: one id while it is quiet, up to 1,024 under load. Ids are
unique for ever and grow within a process; what a process leaves of its block is never used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from chalicelib.service.ports import Clock

LARGEST_BLOCK = 1_024
BUSY_MS = 1_000
"""A block used up within this time is followed by one twice its size, any other by half."""

LeaseIds = Callable[[str, int], int]
"""Add a number of ids to a tenant's counter in one atomic step; return the last of them."""


@dataclass(slots=True)
class _Block:
    """What this process holds of one tenant's ids: those above ``used``, up to ``last``."""

    used: int = 0
    last: int = 0
    size: int = 1
    leased_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class IdLeases:
    """Hands out ids, leasing another block whenever one is used up. Thread-safe."""

    def __init__(self, lease: LeaseIds, clock: Clock, largest: int = LARGEST_BLOCK) -> None:
        self._lease = lease
        self._clock = clock
        self._largest = largest
        self._blocks: dict[str, _Block] = {}
        self._lock = threading.Lock()

    def next(self, tenant: str) -> int:
        """Return an id that nobody was given before. Raises what the lease raises."""
        with self._lock:
            block = self._blocks.setdefault(tenant, _Block())
        with block.lock:
            if block.used == block.last:
                self._renew(tenant, block)
            block.used += 1
            return block.used

    def _renew(self, tenant: str, block: _Block) -> None:
        now = self._clock()
        size = min(next_size(block.size, block.leased_at, now), self._largest)
        block.last = self._lease(tenant, size)
        block.used = block.last - size
        block.size, block.leased_at = size, now


def next_size(size: int, leased_at: float | None, now: float) -> int:
    """Return how many ids to lease after a block of ``size`` leased at ``leased_at`` (ms)."""
    if leased_at is None:
        return 1
    if 0 <= now - leased_at <= BUSY_MS:
        return min(size * 2, LARGEST_BLOCK)
    return max(size // 2, 1)
