"""Turns: which tenant's timers are looked at next, and when.

One time per tenant is kept, not one per timer: the earliest at which it may have a timer to fire.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T", bound=str)


class _Alarms(Generic[T]):
    """The next time of each name; an earlier time replaces a later one."""

    def __init__(self) -> None:
        self._at: dict[T, float] = {}
        # May have entries that were replaced: only that with the time in ``_at`` counts.
        self._heap: list[tuple[float, T]] = []

    def set(self, name: T, at: float) -> None:
        if at < self._at.get(name, math.inf):
            self._at[name] = at
            heapq.heappush(self._heap, (at, name))

    def next(self) -> float:
        """Return the earliest time, infinity if there is none."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[T]:
        """Remove and return the names whose time has come."""
        names = []
        while self.next() <= now:
            _, name = heapq.heappop(self._heap)
            del self._at[name]
            names.append(name)
        return names


class Turns:
    """The tenants that may have a timer to fire, in the order in which they are served.

    A tenant waits for a time, or it is *ready*, or it is *blocked* until a call ends. Its timers to
    a receiver without room are *held*: they wait in a queue of that receiver, so that they are not
    in the way of others, until the receiver is *released*.
    """

    def __init__(self, wall_clock: Callable[[], float], clock: Callable[[], float]) -> None:
        """``wall_clock`` is in epoch ms, ``clock`` is monotonic and in seconds."""
        self._wall_clock = wall_clock
        self._clock = clock
        self._due: _Alarms[str] = _Alarms()
        self._unblocked: _Alarms[str] = _Alarms()
        self._released: _Alarms[str] = _Alarms()
        # The values are None: sets that keep their order.
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._blocked: dict[str, None] = {}
        self._holders: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._to_take: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def note(self, tenant: str, at: int) -> None:
        """Look at ``tenant`` at ``at`` (epoch ms), or earlier."""
        self._due.set(tenant, at)

    def next_at(self) -> float:
        """Return when a tenant is ready: epoch ms, infinity if a call must end before."""
        if self._ready:
            return -math.inf
        waits_s = min(self._unblocked.next(), self._released.next()) - self._clock()
        return min(self._due.next(), self._wall_clock() + max(waits_s, 0.0) * 1000)

    def advance(self) -> bool:
        """Make the tenants ready whose time has come; return whether any tenant is ready."""
        now_s = self._clock()
        for receiver in self._released.due(now_s):
            self.release(receiver)
        for tenant in (*self._unblocked.due(now_s), *self._due.due(self._wall_clock())):
            self.make_ready(tenant)
        return bool(self._ready)

    def make_ready(self, tenant: str) -> None:
        """Serve ``tenant`` after those that are ready already."""
        self._ready[tenant] = None

    def take(self, limit: int) -> list[str]:
        """Remove and return up to ``limit`` tenants that are ready, the first one first."""
        return [self._ready.popitem(last=False)[0] for _ in range(min(limit, len(self._ready)))]

    def block(self, tenant: str, wait_s: float) -> None:
        """Leave ``tenant`` alone for ``wait_s`` seconds, or until a call ends if that is 0."""
        if wait_s:
            self._unblocked.set(tenant, self._clock() + wait_s)
        else:
            self._blocked[tenant] = None

    def hold(self, tenant: str, receiver: str, wait_s: float) -> None:
        """Note that timers of ``tenant`` are held: for ``wait_s`` seconds, or until a call ends."""
        self._holders[receiver][tenant] = None
        if wait_s:
            self._released.set(receiver, self._clock() + wait_s)

    def is_held(self, tenant: str, receiver: str) -> bool:
        """Tell whether timers of ``tenant`` to ``receiver`` are held."""
        return tenant in self._holders.get(receiver, ())

    def released(self, tenant: str) -> list[str]:
        """Return the receivers whose held timers ``tenant`` may take, if they have room."""
        return list(self._to_take.get(tenant, ()))

    def release(self, receiver: str) -> None:
        """Let the tenants that hold timers for ``receiver`` take them."""
        for tenant in self._holders.get(receiver, ()):
            self._to_take[tenant][receiver] = None
            self.make_ready(tenant)

    def await_release(self, tenant: str, receiver: str) -> None:
        """Take no held timer of ``receiver`` until it is released again."""
        self._to_take[tenant].pop(receiver, None)
        if not self._to_take[tenant]:
            del self._to_take[tenant]

    def forget_held(self, tenant: str, receiver: str) -> None:
        """Note that ``tenant`` holds no timer for ``receiver`` any more."""
        self.await_release(tenant, receiver)
        self._holders[receiver].pop(tenant, None)
        if not self._holders[receiver]:
            del self._holders[receiver]

    def call_ended(self, receiver: str) -> bool:
        """Note that a call to ``receiver`` has ended; return whether a tenant is ready."""
        self.release(receiver)
        for tenant in self._blocked:
            self.make_ready(tenant)
        self._blocked.clear()
        return bool(self._ready)
