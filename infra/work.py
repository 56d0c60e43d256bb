"""The work for one timer on AWS: the calls and the units of DynamoDB that the tests count.

The calculator of costs (``infra.cost``), the simulation of capacity (``bench.capacity``) and the
tests that count (``tests/integration/test_cost.py``, ``tests/unit/test_work.py``) share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one event costs, without the id that it may reserve.

    ``calls`` counts the calls of our functions by operation. ``table_writes`` and ``index_writes``
    are write units: a write that changes an entry of an index pays for both. ``reads`` are
    consistent read units.
    """

    calls: Mapping[str, int]
    table_writes: int
    index_writes: int
    reads: int = 0

    @property
    def writes(self) -> int:
        """Return the write units of the table and its indexes, as they are paid."""
        return self.table_writes + self.index_writes


CREATE = Work(calls={"SendMessage": 1, "PutItem": 1}, table_writes=1, index_writes=1)
"""A timer that is due within 15 minutes is set: its wake-up, then its row."""

CREATE_FAR = Work(calls={"CreateSchedule": 1, "PutItem": 1}, table_writes=1, index_writes=1)
"""A timer that is due later is set. Its schedule is its wake-up."""

BATCH_SIZE = 1_000
BATCH_CALLS = {"PutItem": 1_000, "SendMessageBatch": 100, "UpdateItem": 10}
"""The calls of a request that sets a thousand near timers. The updates reserve the ids."""

HAND_OVER = Work(calls={"SendMessage": 1}, table_writes=0, index_writes=0)
"""A schedule fires ahead of time, and the webhook function queues the rest of the delay."""

DELIVERY = Work(calls={"UpdateItem": 2}, table_writes=2, index_writes=1)
"""A claim, and the settlement that takes the row out of the index."""

RETRY = Work(calls={"UpdateItem": 2, "SendMessage": 1}, table_writes=2, index_writes=2)
"""An attempt that fails and is tried again: the entry in the index moves, which is two writes."""


def total(*works: Work) -> Work:
    """Return the sum of several events."""
    calls: dict[str, int] = {}
    for work in works:
        for operation, count in work.calls.items():
            calls[operation] = calls.get(operation, 0) + count
    return Work(
        calls=calls,
        table_writes=sum(work.table_writes for work in works),
        index_writes=sum(work.index_writes for work in works),
        reads=sum(work.reads for work in works),
    )


NEAR_TIMER = total(CREATE, DELIVERY)
FAR_TIMER = total(CREATE_FAR, HAND_OVER, DELIVERY)
