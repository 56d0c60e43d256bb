"""Suspends a request on an event loop while it waits, although its code is written for threads.

Such a request runs in a greenlet. The greenlet's parent is the event loop, which goes on when the
request is suspended or ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


def start(work: Callable[[], None]) -> None:
    """Begin ``work`` on the event loop; return when it ends or is suspended for the first time."""
    greenlet(work).switch()


def can_suspend() -> bool:
    """Tell whether the calling code runs in a greenlet that ``start`` made."""
    return getcurrent().parent is not None


class Suspension(Generic[T]):
    """The calling greenlet, suspended until somebody on the event loop resumes it."""

    def __init__(self) -> None:
        self._greenlet = getcurrent()

    def wait(self) -> T:
        """Suspend the caller; return the value it is resumed with, or raise the error."""
        value: T = self._greenlet.parent.switch()
        return value

    def resume(self, value: T) -> None:
        """Let it go on until it ends or is suspended again."""
        self._greenlet.switch(value)

    def fail(self, error: Exception) -> None:
        """Raise ``error`` where it was suspended."""
        self._greenlet.throw(error)
