"""Turns for slow requests: each may take a thread for seconds, and tenants share the threads."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from chalicelib.domain.errors import Unavailable

THREADS = 4
"""Slow requests that one worker carries out at once."""

MAX_WAITING = 256
"""Slow requests of one tenant that wait for a thread. Further ones are refused."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    """Work for a thread. ``done`` gets its result on the event loop."""

    work: Callable[[], Any]
    done: Callable[[Any], None]


class SlowRequests:
    """Carries slow requests out in threads, so that tenants take turns.

    It is used on the event loop only.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        threads: int = THREADS,
        share: int = THREADS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """``share`` is how many of the ``threads`` one tenant may use, even if no other waits."""
        self._loop = loop
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="slow")
        self._free = threads
        self._share = share
        self._max_waiting = max_waiting
        # By tenant, in the order of the tenants' turns.
        self._waiting: dict[str, deque[_Job]] = {}
        self._running: Counter[str] = Counter()

    def submit(self, tenant: str, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Carry out ``work``, which raises nothing, and pass its result to ``done``.

        Raises ``Unavailable`` if too much work of the tenant waits already.
        """
        waiting = self._waiting.setdefault(tenant, deque())
        if len(waiting) >= self._max_waiting:
            raise Unavailable("Too many requests about many timers wait; nothing was changed.", 2)
        waiting.append(_Job(work, done))
        self._start_next()

    def _start_next(self) -> None:
        while self._free:
            tenant = next((each for each in self._waiting if self._may_start(each)), None)
            if tenant is None:
                return
            waiting = self._waiting.pop(tenant)
            job = waiting.popleft()
            if waiting:
                self._waiting[tenant] = waiting  # its next turn comes after those of the others
            self._free -= 1
            self._running[tenant] += 1
            self._executor.submit(self._carry_out, tenant, job)

    def _may_start(self, tenant: str) -> bool:
        return self._running[tenant] < self._share

    def _carry_out(self, tenant: str, job: _Job) -> None:
        result = job.work()
        self._loop.call_soon_threadsafe(self._finish, tenant, job, result)

    def _finish(self, tenant: str, job: _Job, result: Any) -> None:
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        self._start_next()
        job.done(result)
