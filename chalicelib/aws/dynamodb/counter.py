"""A tenant's id counter, which also counts its rate (GCRA, see ``domain.rate``).

Every create needs an id anyway, so the rate is counted in the write that reserves ids. At 100
timers a second an id block has at most ten ids: 0.1 counter writes a timer. If a tenant uses up its
rate through several processes, almost every second write fails its condition, and DynamoDB charges
for it all the same: about 0.2 writes a timer. A refused create costs one write.

A move, a fire and a replay need no id. They count in the same way, in blocks of their own
(``pay``): a single one costs one write, and many of them 0.1 each.

The rate is not exact: a process may have reserved the ids of the next tenth of a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.id_blocks import MAX_BLOCK
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import number
from chalicelib.domain.rate import Rate
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row

MAX_BLOCK_S = 0.1
"""An id block has at most the ids of this many seconds at the tenant's rate."""

MAX_TRIES = 3
"""How often a reservation is tried while other processes keep changing the counter."""


@dataclass(frozen=True, slots=True)
class _Payment:
    """The part of the update that moves ``paid_until``, the theoretical arrival time.

    It also sets ``paid_at``, the latest clock reading of any process, to the value ``:paid_at``.
    """

    paid_until: str
    condition: str
    values: Mapping[str, int]


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
    def limited(self) -> bool:
        """Whether tenants have a rate."""
        return self._rate is not None

    @property
    def max_block(self) -> int:
        """The number of ids that one reservation may take."""
        if self._rate is None:
            return MAX_BLOCK
        return max(1, min(MAX_BLOCK, int(self._rate.per_s * MAX_BLOCK_S)))

    def reserve(self, tenant: str, count: int) -> int:
        """Add ``count`` to a tenant's counter and return its new value.

        Raises ``RateLimited`` if the tenant sets timers faster than its rate, and ``Unavailable``.
        """
        # A repeated write whose first try applied adds twice. It leaves a gap in the ids, which
        # is allowed.
        if self._rate is None:
            return self._add(tenant, count)
        return self._reserve_at_rate(tenant, count, count, self._rate)

    def pay(self, tenant: str, count: int) -> None:
        """Count ``count`` timers in a tenant's rate, without ids. Raises as ``reserve`` does."""
        if self._rate is not None:
            self._reserve_at_rate(tenant, 0, count, self._rate)

    def _reserve_at_rate(self, tenant: str, ids: int, count: int, rate: Rate) -> int:
        """Reserve ids, and move the tenant's theoretical arrival time (TAT) in the same write.

        ``count`` timers are counted.

        GCRA moves the TAT to max(TAT, now) + cost. An update expression has no maximum. So this
        tries two conditional writes in turn: one for an idle tenant, whose TAT is in the past, and
        one for a busy tenant.
        """
        now = self._clock()
        idle = _payment_of_idle(rate, now, count)
        for _ in range(MAX_TRIES):
            try:
                return self._add(tenant, ids, idle)
            except ConditionFailed as failure:
                paid_until, latest = _ms(failure.row, "paid_until"), _ms(failure.row, "paid_at")
                # The tenant is busy. Raises RateLimited if its TAT is too far ahead.
                rate.admit(paid_until, now, count, latest=latest)
                busy = _payment_of_busy(rate, now, rate.steady(paid_until, latest, now), count)
            # Another process may have moved the TAT since then. If so, start again.
            with contextlib.suppress(ConditionFailed):
                return self._add(tenant, ids, busy)
        raise rate.refusal()

    def _add(self, tenant: str, count: int, payment: _Payment | None = None) -> int:
        """Increment the counter and return its new value."""
        pay = f", #paid_until = {payment.paid_until}, #paid_at = :paid_at" if payment else ""
        values = {":format": rows.FORMAT, ":count": count, **(payment.values if payment else {})}
        # ADD creates the counter of a tenant that has none yet.
        counter = self._items.update(
            rows.counter_key(tenant),
            f"SET #f = :format{pay} ADD #last_id :count",
            {name: number(value) for name, value in values.items()},
            condition=payment.condition if payment else None,
        )
        return last_id(counter)


def _payment_of_idle(rate: Rate, now: float, count: int) -> _Payment:
    """Return the payment of a tenant whose TAT is not ahead of ``now``: now + cost."""
    return _Payment(
        paid_until=":later",
        # Beyond the horizon the TAT is of a clock that was put back, and does not count.
        condition="attribute_not_exists(#paid_until) OR #paid_until <= :now "
        "OR #paid_until > :horizon",
        values={
            ":now": _microseconds(now),
            ":paid_at": _microseconds(now),
            ":later": _microseconds(now) + _microseconds(rate.cost_ms(count)),
            ":horizon": _microseconds(rate.horizon(now)),
        },
    )


def _payment_of_busy(rate: Rate, now: float, steady: float, count: int) -> _Payment:
    """Return the payment of a tenant whose TAT is ahead, but leaves room in the burst.

    ``steady`` is ``now``, or the latest reading of another process whose clock is ahead.
    """
    return _Payment(
        paid_until="#paid_until + :cost",
        condition="#paid_until BETWEEN :now AND :most",
        values={
            ":cost": _microseconds(rate.cost_ms(count)),
            ":now": _microseconds(now),
            ":paid_at": _microseconds(steady),
            ":most": _microseconds(steady + rate.max_ahead_ms(count)),
        },
    )


def _microseconds(ms: float) -> int:
    # Whole milliseconds are too coarse: above 1,000 timers a second the cost of one would be 0.
    return int(ms * 1000)


def _ms(counter: Row | None, attribute: str) -> float:
    """Return a time of the counter in epoch ms, 0 if it has none.

    Rows of older versions have no ``paid_at``.
    """
    return int(counter[attribute]["N"]) / 1000 if counter and attribute in counter else 0.0
