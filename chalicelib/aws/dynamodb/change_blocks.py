"""Changes of timers that count in the rate of their tenant, paid for in blocks as ids are.

Without blocks each move would write the counter, which takes 1,000 writes a second at most (AWS
limit of a partition).
"""

from __future__ import annotations

from chalicelib.aws.dynamodb.counter import Counter
from chalicelib.aws.dynamodb.id_blocks import IdBlocks
from chalicelib.service.ports import Clock


class ChangeBlocks:
    """Admits changes at the rate of each tenant, and pays for a block when one is used up.

    Thread-safe.
    """

    def __init__(self, counter: Counter, clock: Clock) -> None:
        self._counter = counter
        # A block of numbers that stand for nothing: only how many are left counts.
        self._blocks = IdBlocks(self._pay, clock, counter.max_block)

    def admit(self, tenant: str) -> None:
        """Count one change. Raises ``RateLimited`` and ``Unavailable``."""
        if self._counter.limited:
            self._blocks.next(tenant)

    def _pay(self, tenant: str, count: int) -> int:
        self._counter.pay(tenant, count)
        return count
