"""Ids from reserved blocks (hi-lo): the counter of a tenant is written once per block.

One counter item takes at most 1,000 writes a second (AWS limit of a partition). So a process
reserves a block of ids at a time: one id while it is idle, up to 1,024 under load. Ids are unique
for ever and grow within a process. The ids left in a block when a process ends are never used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from chalicelib.service.ports import Clock

MAX_BLOCK = 1_024
"""Ids in the largest block."""

BUSY_MS = 1_000
"""If a block was used up within this time, the next one has twice its size, else half of it."""

ReserveIds = Callable[[str, int], int]
"""Add a number of ids to a tenant's counter in one atomic step; return the last of them."""


@dataclass(slots=True)
class _Block:
    """The ids of one tenant that this process may still use: above ``used``, up to ``last``."""

    used: int = 0
    last: int = 0
    size: int = 1
    reserved_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class IdBlocks:
    """Returns new ids, and reserves another block when one is used up. Thread-safe."""

    def __init__(self, reserve: ReserveIds, clock: Clock, max_block: int = MAX_BLOCK) -> None:
        self._reserve = reserve
        self._clock = clock
        self._max_block = max_block
        self._blocks: dict[str, _Block] = {}
        self._lock = threading.Lock()

    def next(self, tenant: str) -> int:
        """Return an id that was never used before. Raises what ``reserve`` raises."""
        with self._lock:
            block = self._blocks.setdefault(tenant, _Block())
        # One lock per tenant: a tenant whose counter is slow must not delay the others.
        with block.lock:
            if block.used == block.last:
                self._renew(tenant, block)
            block.used += 1
            return block.used

    def give_back(self, tenant: str, unused: int) -> None:
        """Take back an id that was not used, unless a higher one is in use by now."""
        with self._lock:
            block = self._blocks.setdefault(tenant, _Block())
        with block.lock:
            if block.used == unused:
                block.used -= 1

    def _renew(self, tenant: str, block: _Block) -> None:
        now = self._clock()
        size = min(next_size(block.size, block.reserved_at, now), self._max_block)
        # The counter's new value is the last id of the block. If this raises, the old block stays
        # as it is, used up, and the next call tries again.
        block.last = self._reserve(tenant, size)
        block.used = block.last - size
        block.size, block.reserved_at = size, now


def next_size(size: int, reserved_at: float | None, now: float) -> int:
    """Return the size of the block after one of ``size``, reserved at ``reserved_at`` (ms)."""
    if reserved_at is None:
        return 1
    # A negative age means that the clock was put back. Then the load is unknown, and the block
    # shrinks: a block that is too large wastes ids, one that is too small only costs a write.
    if 0 <= now - reserved_at <= BUSY_MS:
        return min(size * 2, MAX_BLOCK)
    return max(size // 2, 1)
