"""Simulated processes: tasks that share memory, and are killed together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from greenlet import greenlet

from tests.simulation.virtual_time import Killed, VirtualTime

T = TypeVar("T")


class Task:
    """One thread of a process.

    ``context`` belongs to the oracle (how far a delivery got), ``operation`` to the DynamoDB
    storage (which operation of the store is running).
    """

    def __init__(self, time: VirtualTime, process: Process, work: Callable[[], None]) -> None:
        self.process = process
        self.context: Any = None
        self.operation: Any = None
        self._time = time
        self._work = work
        self._greenlet = greenlet(self._run, parent=time.main)
        self._over = False

    def resume(self) -> None:
        """Continue where the task was suspended. Only an event may call this."""
        if not self._over:
            self._time.current = self
            try:
                self._greenlet.switch()
            finally:
                self._time.current = None

    def kill(self) -> None:
        """Raise ``Killed`` where the task is suspended. Only an event may call this."""
        if self._greenlet and not self._over:
            self._time.current = self
            try:
                self._greenlet.throw(Killed)
            finally:
                self._time.current = None
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
    """Tasks, and the objects they made. Killing the process drops all of them."""

    def __init__(self, time: VirtualTime, name: str, skew_ms: float = 0.0) -> None:
        self.name = name
        self.alive = True
        self.on_crash = self.kill
        """Called after ``crash``. Its owner replaces it, to start a new process too."""
        self._time = time
        self._skew_ms = skew_ms
        self._tasks: dict[int, Task] = {}

    @property
    def busy(self) -> bool:
        """Return whether a task has not ended."""
        return bool(self._tasks)

    def clock(self) -> float:
        """Return the time (epoch ms) by this process's own clock."""
        return self._time.now + self._skew_ms

    def start(self, work: Callable[[], None]) -> Task:
        """Start a task now."""
        task = Task(self._time, self, work)
        self._tasks[id(task)] = task
        self._time.after(0, task.resume)
        return task

    def ended(self, task: Task) -> None:
        """Forget a task that has ended."""
        self._tasks.pop(id(task), None)

    def kill(self) -> None:
        """Kill all tasks where they are suspended. Only an event may call this."""
        self.alive = False
        for task in list(self._tasks.values()):
            task.kill()
        self._tasks.clear()

    def crash(self) -> None:
        """Kill the process from within one of its tasks."""
        self.alive = False
        # A task cannot kill the others while it runs itself: an event does that.
        self._time.after(0, self.on_crash)
        raise Killed


class TaskPool(Executor):
    """A thread pool whose threads are tasks of the process that uses it."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def map(  # type: ignore[override]
        self, work: Callable[..., T], *pieces: Iterable[Any], **_: object
    ) -> Iterator[T]:
        """Do all the work; yield the results in the order of the pieces, or raise."""
        parent = self._time.task
        jobs = [_Job(work, arguments) for arguments in zip(*pieces, strict=True)]
        for job in jobs:
            task = parent.process.start(functools.partial(self._carry_out, job, jobs, parent))
            task.context = parent.context
        if jobs:
            self._time.suspend()
        return (job.result() for job in jobs)

    def _carry_out(self, job: _Job, jobs: Sequence[_Job], parent: Task) -> None:
        job.carry_out()
        if all(job.done for job in jobs):
            self._time.after(0, parent.resume)


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

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result
