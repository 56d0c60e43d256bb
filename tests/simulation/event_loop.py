"""An asyncio event loop in virtual time: its callbacks are events of the run's queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any

from tests.simulation.virtual_time import Killed, VirtualTime


class VirtualTimeLoop(asyncio.AbstractEventLoop):
    """The part of an event loop that the dispatcher uses. It runs nothing while not ``alive``."""

    def __init__(self, time: VirtualTime, work_ms: Callable[[], float]) -> None:
        """``work_ms`` draws how long a thread takes for a piece of work."""
        self.alive = True
        self._time = time
        self._work_ms = work_ms
        self._tasks: list[asyncio.Task[Any]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop within the block. If the process is killed there, leave the block."""
        asyncio._set_running_loop(self)
        try:
            with contextlib.suppress(Killed):
                yield
        finally:
            asyncio._set_running_loop(None)

    def time(self) -> float:
        return self._time.now / 1000

    def get_debug(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._time.after(0, lambda: self._run(handle))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._time.at(when * 1000, lambda: self._run(handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, **options)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, work: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work a little later, at one instant."""
        future = self.create_future()

        def do() -> None:
            try:
                result = work(*args)
            except Exception as error:  # noqa: BLE001 - raised where the future is awaited
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self._work_ms() / 1000, do)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None: ...

    def discard(self) -> None:
        """Close the tasks of a dead loop, without asyncio's warning that they never ended."""
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._tasks.clear()

    def _run(self, handle: asyncio.Handle) -> None:
        # Handle._run would pass an exception to call_exception_handler; here it must reach the run.
        if self.alive and not handle.cancelled():
            with self.running():
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._time.failure is None:
            self._time.failure = error
