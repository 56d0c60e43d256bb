"""A tenant's id counter, which also counts its rate of creates (GCRA, see ``domain.rate``).

Every create must get an id anyway, so the rate costs next to no write of its own. At 100 timers a
second a block has at most ten ids: 0.1 counter writes a timer. A tenant that uses up its rate
through several processes fails the condition of almost every second write, which is paid for all
the same: about 0.2 writes a timer. A refused create costs one.

The rate is as exact as blocks are small: a process may still hold a tenth of a second's worth of
ids that it has not given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.id_blocks import MAX_BLOCK
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number
from chalicelib.domain.errors import RateLimited
from chalicelib.domain.rate import Rate
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

MAX_BLOCK_S = 0.1
"""A block has at most the ids of this many seconds at the tenant's rate."""

TRIES = 3
"""How often a reservation is tried while other processes change the counter in between."""

_IDLE = "attribute_not_exists(#paid_until) OR #paid_until <= :now OR #paid_until > :horizon"
_WITHIN_BURST = "#paid_until BETWEEN :now AND :most"


def last_id(counter: Row | None) -> int:
    """Return the highest id reserved so far, 0 if none was."""
    return int(counter["last_id"]["N"]) if counter and "last_id" in counter else 0


class Counter:
    """The id counters of all tenants. Thread-safe."""

    def __init__(self, items: Items, clock: Clock, rate: Rate | None) -> None:
        self._items = items
        self._clock = clock
        self._rate = rate

    @property
    def max_block(self) -> int:
        """How many ids one reservation may take."""
        if self._rate is None:
            return MAX_BLOCK
        return max(1, min(MAX_BLOCK, int(self._rate.per_s * MAX_BLOCK_S)))

    def reserve(self, tenant: str, count: int) -> int:
        """Add ``count`` to a tenant's counter and return its new value.

        A repeated write whose first try applied leaves a gap in the ids. Raises ``RateLimited``
        when the tenant sets timers faster than it may.
        """
        if self._rate is None:
            return self._add(tenant, count)
        return self._reserve_at_rate(tenant, count, self._rate)

    def _reserve_at_rate(self, tenant: str, count: int, rate: Rate) -> int:
        """Reserve ids and move the tenant's theoretical arrival time in the same write.

        ``paid_until`` is that time, in epoch microseconds. GCRA moves it to max(TAT, now) + cost.
        An update expression knows no maximum, so the two cases are two conditional writes: an
        idle tenant pays from now on, a busy one on top of what it has paid.
        """
        now = self._clock()
        cost = {":cost": _microseconds(rate.cost_ms(count))}
        from_now = {
            ":now": _microseconds(now),
            ":later": _microseconds(now) + cost[":cost"],
            ":horizon": _microseconds(rate.horizon(now)),
        }
        on_top = cost | {
            ":now": from_now[":now"],
            ":most": _microseconds(now + rate.room_ms(count)),
        }
        for _ in range(TRIES):
            try:
                return self._add(tenant, count, ":later", from_now, _IDLE)
            except ConditionFailed as failure:
                # Raises RateLimited unless the tenant has paid little enough for a burst.
                rate.admit(_paid_until(failure.row), now, count)
            with contextlib.suppress(ConditionFailed):
                return self._add(tenant, count, "#paid_until + :cost", on_top, _WITHIN_BURST)
        raise RateLimited(f"At most {rate.per_s:g} timers a second may be set.")

    def _add(
        self,
        tenant: str,
        count: int,
        paid_until: str | None = None,
        values: Mapping[str, int] | None = None,
        condition: str | None = None,
    ) -> int:
        """Increment the counter and return its new value."""
        pay = f", #paid_until = {paid_until}" if paid_until else ""
        every = {":format": rows.FORMAT, ":count": count, **(values or {})}
        counter = self._items.update(
            rows.counter_key(tenant),
            f"SET #f = :format{pay} ADD #last_id :count",
            {name: number(value) for name, value in every.items()},
            condition=condition,
        )
        return last_id(counter)


def _microseconds(epoch_ms: float) -> int:
    return int(epoch_ms * 1000)


def _paid_until(counter: Row | None) -> float:
    """Return up to when a tenant has paid, in epoch ms."""
    return int(counter["paid_until"]["N"]) / 1000 if counter and "paid_until" in counter else 0.0
