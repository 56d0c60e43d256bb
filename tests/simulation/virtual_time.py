"""The virtual time of one run: a clock, and a queue of events that move it.

Everything happens in one thread. The next event is taken from the queue, the clock jumps to the
event's time, and the event's action runs until it ends or gives control back. Nothing waits.

    clock            0 ms        7 ms        12 ms       19 ms       24 ms       5 s
    next event       request     resume A    resume B    kill api-0  callback    start api-0.2
                     |           |           |           |           |           |
    A on api-0.1     ##==call===>##===call===|==========>x           .           ##
    B on queue-0.1   .           .           ##===call===|===========|==========>##
    event loop       .           .           .           .           ##          .

    ##    code under test runs, and the clock stands still
    ==>   the task is suspended in a call to a store, a queue or a receiver; the fault injector
          has drawn how long the call takes, and whether and how it fails
    x     the process is killed: Killed is raised in the task, at the call where it is suspended

A task (``processes.Task``) is a greenlet, so blocking code is suspended without a change to it.
The embedded engine's asyncio callbacks (``event_loop.VirtualTimeLoop``) are events of the same
queue. Events of the same time run in the order in which they were added, and all randomness comes
from one generator, so the seed alone decides the order of everything.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from greenlet import getcurrent

from tests.simulation.trace import Event

if TYPE_CHECKING:
    from tests.simulation.processes import Task

TICKS_PER_MS = 64
"""Event times are multiples of 1/64 ms: exact as floats, in whatever order they are added up."""


class Killed(BaseException):
    """The process of this task was killed. No handler of the code under test catches it."""


class VirtualTime:
    """The clock (``now``, in epoch milliseconds), the queue of events, and the trace."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.current: Task | None = None
        self.trace: list[Event] = []
        self.main = getcurrent()
        self.failure: BaseException | None = None
        """An error to raise from ``run``, where code in between would have caught it."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        """Return the time, in epoch milliseconds."""
        return self.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Add an event at ``when`` (epoch ms), behind all events of that time."""
        exact = math.ceil(when * TICKS_PER_MS) / TICKS_PER_MS
        heapq.heappush(self._events, (max(exact, self.now), next(self._order), action))

    def after(self, milliseconds: float, action: Callable[[], None]) -> None:
        """Add an event that many milliseconds from now."""
        self.at(self.now + milliseconds, action)

    def run(self, until: float) -> None:
        """Run all events up to ``until`` (epoch ms), and set the clock to it."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            if self.failure is not None:
                raise self.failure
        self.now = max(self.now, until)

    @property
    def task(self) -> Task:
        """Return the running task."""
        assert self.current is not None, "no task is running"
        return self.current

    def pause(self, milliseconds: float) -> None:
        """Suspend the running task for a time. Raises ``Killed`` if its process is killed."""
        self.after(milliseconds, self.task.resume)
        self.suspend()

    def suspend(self) -> None:
        """Suspend the running task until an event resumes it. Raises ``Killed`` like ``pause``."""
        process = self.task.process
        self.main.switch()
        if not process.alive:
            raise Killed

    def note(self, what: str, *about: object, who: str | None = None) -> None:
        """Add an event to the trace, by default in the name of the running process."""
        if who is None:
            who = self.current.process.name if self.current else "simulator"
        self.trace.append(Event(self.now, who, what, about))
