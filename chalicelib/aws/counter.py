"""A tenant's id counter, which is its rate limit too: who must pass it anyway is counted there.

So the limit costs no write of its own. It is as exact as ids are leased: a process may still hold
a tenth of a second's worth that it has not used.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from chalicelib.aws import rows
from chalicelib.aws.failures import ConditionFailed
from chalicelib.aws.ids import LARGEST_BLOCK
from chalicelib.aws.items import Items
from chalicelib.aws.rows import number
from chalicelib.errors import RateLimited
from chalicelib.ports import Clock
from chalicelib.rate import Rate

if TYPE_CHECKING:
    from chalicelib.aws.rows import Row

LEASED_AT_ONCE = 0.1
"""The part of a second's worth that one lease takes at most."""

TRIES = 3
"""How often a lease is tried that other processes overtake."""

_ADD = "ADD #last_id :count"


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
            return last_id(self._raise(tenant, count, f"SET #f = :format {_ADD}", {}))
        return self._lease_in_turn(tenant, count, self._rate)

    def _lease_in_turn(self, tenant: str, count: int, rate: Rate) -> int:
        """Pay for ``count`` ids: from now on if all before are paid for, else on top of those.

        ``paid_until`` is the moment of ``rate``, in epoch microseconds.
        """
        now = self._clock()
        for _ in range(TRIES):
            try:
                return self._pay_from_now(tenant, count, rate, now)
            except ConditionFailed as failure:
                rate.admit(_paid_until(failure.row), now, count)
            with contextlib.suppress(ConditionFailed):
                return self._pay_on_top(tenant, count, rate, now)
        raise RateLimited(f"At most {rate.per_s:g} timers a second may be set.")

    def _pay_from_now(self, tenant: str, count: int, rate: Rate, now: float) -> int:
        counter = self._raise(
            tenant,
            count,
            f"SET #f = :format, #paid_until = :later {_ADD}",
            {
                ":now": number(_microseconds(now)),
                ":later": number(_microseconds(now + rate.cost_ms(count))),
            },
            "attribute_not_exists(#paid_until) OR #paid_until <= :now",
        )
        return last_id(counter)

    def _pay_on_top(self, tenant: str, count: int, rate: Rate, now: float) -> int:
        counter = self._raise(
            tenant,
            count,
            f"SET #f = :format, #paid_until = #paid_until + :cost {_ADD}",
            {
                ":now": number(_microseconds(now)),
                ":most": number(_microseconds(now + rate.room_ms(count))),
                ":cost": number(_microseconds(rate.cost_ms(count))),
            },
            "#paid_until BETWEEN :now AND :most",
        )
        return last_id(counter)

    def _raise(
        self, tenant: str, count: int, change: str, values: Row, condition: str | None = None
    ) -> Row:
        values = {":format": number(rows.FORMAT), ":count": number(count), **values}
        return self._items.update(rows.counter_key(tenant), change, values, condition=condition)


def _microseconds(moment: float) -> int:
    return int(moment * 1000)


def _paid_until(counter: Row | None) -> float:
    """Return how far a tenant has paid, in epoch ms."""
    return int(counter["paid_until"]["N"]) / 1000 if counter and "paid_until" in counter else 0.0
