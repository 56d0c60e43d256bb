"""Virtual time, and the tasks and processes that live in it. Nothing waits, nothing runs at once.

A task is a greenlet: the code under test, which blocks and knows nothing of this, is put aside at
any call that takes time, while others go on. So tasks interleave in an order that the seed alone
decides, and a process can be killed between any two calls.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from tests.simulation.trace import Event

T = TypeVar("T")

TICKS_PER_MS = 64
"""SweepCutoffs are multiples of 1/64 ms: exact as floats, however they were added up."""


class Killed(BaseException):
    """The process of this task is dead. No handler of the code under test catches it."""


class Hub:
    """The clock (``now``: epoch milliseconds), and what is to happen at which moment of it."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.current: Task | None = None
        self.trace: list[Event] = []
        self.main = getcurrent()
        self.failure: BaseException | None = None
        """Set by what cannot raise, because code in between would catch it."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        """Return the moment it is."""
        return self.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Let ``action`` happen at ``when``, after what is to happen then already."""
        exact = math.ceil(when * TICKS_PER_MS) / TICKS_PER_MS
        heapq.heappush(self._events, (max(exact, self.now), next(self._order), action))

    def after(self, milliseconds: float, action: Callable[[], None]) -> None:
        """Let ``action`` happen in a while."""
        self.at(self.now + milliseconds, action)

    def run(self, until: float) -> None:
        """Let happen what is to happen up to ``until``."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            if self.failure is not None:
                raise self.failure
        self.now = max(self.now, until)

    @property
    def task(self) -> Task:
        """Return the task that runs."""
        assert self.current is not None, "no task is running"
        return self.current

    def pause(self, milliseconds: float) -> None:
        """Put the running task aside for a while. Raises ``Killed`` if its process dies."""
        self.after(milliseconds, self.task.resume)
        self.park()

    def park(self) -> None:
        """Put the running task aside until something resumes it."""
        process = self.task.process
        self.main.switch()
        if not process.alive:
            raise Killed

    def note(self, what: str, *about: object, who: str | None = None) -> None:
        """Write down what happened."""
        if who is None:
            who = self.current.process.name if self.current else "world"
        self.trace.append(Event(self.now, who, what, about))


class Task:
    """One thread of a process. ``context`` and ``operation``: what
    those that watch keep about what it does."""

    def __init__(self, hub: Hub, process: Process, work: Callable[[], None]) -> None:
        self.process = process
        self.context: Any = None
        self.operation: Any = None
        self._hub = hub
        self._work = work
        self._greenlet = greenlet(self._run, parent=hub.main)
        self._over = False

    def resume(self) -> None:
        """Let it go on from where it was put aside; to be called by the hub."""
        if not self._over:
            self._hub.current = self
            try:
                self._greenlet.switch()
            finally:
                self._hub.current = None

    def kill(self) -> None:
        """End it where it stands; to be called by the hub, once its process is not alive."""
        if self._greenlet and not self._over:
            self._hub.current = self
            try:
                self._greenlet.throw(Killed)
            finally:
                self._hub.current = None
        self._over = True

    def _run(self) -> None:
        try:
            self._work()
        except Killed:
            pass
        finally:
            self._over = True
            self.process.ended(self)


class Process:
    """What dies together: its tasks, and every object they made."""

    def __init__(self, hub: Hub, name: str, skew_ms: float = 0.0) -> None:
        self.name = name
        self.alive = True
        self.dies = self.kill
        self._hub = hub
        self._skew_ms = skew_ms
        self._tasks: dict[int, Task] = {}

    @property
    def busy(self) -> bool:
        """Tell whether a task is not over."""
        return bool(self._tasks)

    def clock(self) -> float:
        """Return what this process takes for now."""
        return self._hub.now + self._skew_ms

    def start(self, work: Callable[[], None]) -> Task:
        """Begin a task, at this moment."""
        task = Task(self._hub, self, work)
        self._tasks[id(task)] = task
        self._hub.after(0, task.resume)
        return task

    def ended(self, task: Task) -> None:
        """Forget a task that is over."""
        self._tasks.pop(id(task), None)

    def kill(self) -> None:
        """End all tasks where they stand; to be called by the hub."""
        self.alive = False
        for task in list(self._tasks.values()):
            task.kill()
        self._tasks.clear()

    def die(self) -> None:
        """End the process from within one of its tasks."""
        self.alive = False
        self._hub.after(0, self.dies)
        raise Killed


class Crew(Executor):
    """Work side by side as tasks of the process that asks for it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def map(  # type: ignore[override]
        self, work: Callable[..., T], *pieces: Iterable[Any], **_: object
    ) -> Iterator[T]:
        """Do all the work; yield the results in the order of the pieces, or raise."""
        parent = self._hub.task
        jobs = [_Job(work, arguments) for arguments in zip(*pieces, strict=True)]
        for job in jobs:
            task = parent.process.start(functools.partial(self._carry_out, job, jobs, parent))
            task.context = parent.context
        if jobs:
            self._hub.park()
        return (job.outcome() for job in jobs)

    def _carry_out(self, job: _Job, jobs: Sequence[_Job], parent: Task) -> None:
        job.carry_out()
        if all(job.done for job in jobs):
            self._hub.after(0, parent.resume)


class _Job:
    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.done = False
        self._result: Any = None
        self._error: Exception | None = None
        self._work = work
        self._arguments = arguments

    def carry_out(self) -> None:
        try:
            self._result = self._work(*self._arguments)
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error
        self.done = True

    def outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result
