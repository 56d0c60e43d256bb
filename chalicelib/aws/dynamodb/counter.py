"""A tenant's id counter, which is its rate limit too: who must pass it anyway is counted there.

So the limit costs next to no write of its own: at 100 a second a lease takes ten ids at most, and
a tenant that uses up its rate through several processes pays for a failed condition with almost
every lease, about 0.2 writes a timer; a create that is refused costs one. The limit is as exact as
ids are leased: a process may still hold a tenth of a second's worth that it has not used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.ids import LARGEST_BLOCK
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number
from chalicelib.domain.errors import RateLimited
from chalicelib.domain.rate import Rate
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

LEASED_AT_ONCE = 0.1
"""The part of a second's worth that one lease takes at most."""

TRIES = 3
"""How often a lease is tried that other processes overtake."""

_ALL_PAID = "attribute_not_exists(#paid_until) OR #paid_until <= :now OR #paid_until > :horizon"
_ROOM_LEFT = "#paid_until BETWEEN :now AND :most"


def last_id(counter: Row | None) -> int:
    """Return the highest id leased so far, 0 if none was."""
    return int(counter["last_id"]["N"]) if counter and "last_id" in counter else 0


class Counter:
    """The counters of all tenants. Thread-safe."""

    def __init__(self, items: Items, clock: Clock, rate: Rate | None) -> None:
        self._items = items
        self._clock = clock
        self._rate = rate

    @property
    def largest_lease(self) -> int:
        """How many ids one lease may take."""
        if self._rate is None:
            return LARGEST_BLOCK
        return max(1, min(LARGEST_BLOCK, int(self._rate.per_s * LEASED_AT_ONCE)))

    def lease(self, tenant: str, count: int) -> int:
        """Raise a tenant's counter and return where it stands. A repeated raise leaves a gap.

        Raises ``RateLimited`` when the tenant sets timers faster than it may.
        """
        if self._rate is None:
            return self._add(tenant, count)
        return self._lease_in_turn(tenant, count, self._rate)

    def _lease_in_turn(self, tenant: str, count: int, rate: Rate) -> int:
        """Pay for ``count`` ids: from now on if all before are paid for, else on top of those.

        ``paid_until`` is the moment of ``rate``, in epoch microseconds.
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
                return self._add(tenant, count, ":later", from_now, _ALL_PAID)
            except ConditionFailed as failure:
                rate.admit(_paid_until(failure.row), now, count)
            with contextlib.suppress(ConditionFailed):
                return self._add(tenant, count, "#paid_until + :cost", on_top, _ROOM_LEFT)
        raise RateLimited(f"At most {rate.per_s:g} timers a second may be set.")

    def _add(
        self,
        tenant: str,
        count: int,
        paid_until: str | None = None,
        values: Mapping[str, int] | None = None,
        condition: str | None = None,
    ) -> int:
        """Raise the counter, and where it stands is what is returned."""
        pay = f", #paid_until = {paid_until}" if paid_until else ""
        every = {":format": rows.FORMAT, ":count": count, **(values or {})}
        counter = self._items.update(
            rows.counter_key(tenant),
            f"SET #f = :format{pay} ADD #last_id :count",
            {name: number(value) for name, value in every.items()},
            condition=condition,
        )
        return last_id(counter)


def _microseconds(moment: float) -> int:
    return int(moment * 1000)


def _paid_until(counter: Row | None) -> float:
    """Return how far a tenant has paid, in epoch ms."""
    return int(counter["paid_until"]["N"]) / 1000 if counter and "paid_until" in counter else 0.0
