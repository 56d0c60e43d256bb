"""Fault injection: the layer between the code under test and the calls it makes."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from tests.simulation.fault_profile import FaultProfile
from tests.simulation.virtual_time import VirtualTime

T = TypeVar("T")

QUICK_MS = 12.0
SLOW_MS = 6_000.0
STALL_MS = 70_000.0
"""More than twice a lease."""

APPLIED_LATE_MS = 30_000.0


class CallFault(enum.Enum):
    """How one call goes wrong, if it does."""

    NONE = "ok"
    REFUSED = "refused"
    RESPONSE_LOST = "response lost"
    APPLIED_LATE = "applied late"
    REPEATED = "repeated"
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"


class FaultInjector:
    """Draws the fault of each call. While disabled, all calls are quick and succeed."""

    def __init__(self, time: VirtualTime, rng: random.Random, profile: FaultProfile) -> None:
        self.enabled = True
        self.pending = 0
        """How many calls were given up by their caller and will still be carried out."""
        self.injected: Counter[str] = Counter()
        self._time = time
        self._rng = rng
        self._profile = profile
        self._call_faults = (
            (profile.refused, CallFault.REFUSED),
            (profile.response_lost, CallFault.RESPONSE_LOST),
            (profile.applied_late, CallFault.APPLIED_LATE),
            (profile.repeated, CallFault.REPEATED),
            (profile.killed / 2, CallFault.KILLED_BEFORE),
            (profile.killed / 2, CallFault.KILLED_AFTER),
        )

    def call(
        self,
        name: str,
        work: Callable[[], T],
        *about: object,
        lost: Callable[[], Exception],
        repeats: bool = False,
        instant: bool = False,
        may_be_late: bool = True,
    ) -> T:
        """Carry out ``work`` at one instant within the time that the call takes, or do not.

        Raises the exception that ``lost`` makes when the caller gets no response. ``repeats``:
        the caller is a client library that retries by itself. ``instant``: the caller holds a
        lock of its process. The other tasks, being greenlets, could never wait for that lock.
        Without ``may_be_late``, a call that its caller gave up is never carried out.
        """
        time = self._time
        fault = self._draw_call_fault(repeats=repeats)
        if fault is CallFault.APPLIED_LATE and not may_be_late:
            fault = CallFault.REFUSED
        self._pause(instant=instant)
        if fault is CallFault.KILLED_BEFORE:
            self.kill(name, *about)
        if fault is CallFault.REFUSED:
            time.note(name, *about, fault.value)
            raise lost()
        if fault is CallFault.APPLIED_LATE:
            time.note(name, *about, "given up")
            self.pending += 1
            delay_ms = self._rng.random() * APPLIED_LATE_MS
            time.after(delay_ms, lambda: self._apply_late(name, work, about))
            raise lost()
        if fault is CallFault.REPEATED:
            self._first_try(name, work, about)
            self._pause(instant=instant)
        try:
            result = work()
        except Exception as error:
            time.note(name, *about, "->", type(error).__name__, fault.value)
            self._end(name, fault, lost, instant=instant)
            raise
        time.note(name, *about, "->", result, fault.value)
        self._end(name, fault, lost, instant=instant)
        return result

    def delay(self) -> float:
        """Draw how long a step takes, in milliseconds."""
        share = self._rng.random()
        if self.enabled:
            draw = self._rng.random()
            if draw < self._profile.stalled:
                self.injected["stalled"] += 1
                return STALL_MS * (1 + share) / 2
            if draw < self._profile.stalled + self._profile.slow:
                self.injected["slow"] += 1
                return SLOW_MS * share
        return QUICK_MS * share

    def occurs(self, probability: float, what: str) -> bool:
        """Draw whether a fault of this probability occurs, and count it as ``what``."""
        if not self.enabled or self._rng.random() >= probability:
            return False
        self.injected[what] += 1
        return True

    def may_kill(self, what: str, *about: object) -> None:
        """Draw whether the running task's process is killed here."""
        if self.occurs(self._profile.killed / 2, "killed while sending"):
            self.kill(what, *about)

    def kill(self, what: str, *about: object) -> None:
        """Kill the running task's process here."""
        self._time.note(what, *about, "killed")
        self._time.task.process.crash()

    def _draw_call_fault(self, *, repeats: bool) -> CallFault:
        if not self.enabled:
            return CallFault.NONE
        draw = self._rng.random()
        for probability, fault in self._call_faults:
            if draw < probability:
                if fault is CallFault.REPEATED and not repeats:
                    break
                self.injected[fault.value] += 1
                return fault
            draw -= probability
        return CallFault.NONE

    def _pause(self, *, instant: bool) -> None:
        if not instant:
            self._time.pause(self.delay())

    def _end(
        self, name: str, fault: CallFault, lost: Callable[[], Exception], *, instant: bool
    ) -> None:
        if fault is CallFault.KILLED_AFTER:
            self.kill(name)
        self._pause(instant=instant)
        if fault is CallFault.RESPONSE_LOST:
            raise lost()

    def _first_try(self, name: str, work: Callable[[], object], about: tuple[object, ...]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - the response of the first try is lost
            result = type(error).__name__
        self._time.note(name, *about, "->", result, "first try")

    def _apply_late(self, name: str, work: Callable[[], object], about: tuple[object, ...]) -> None:
        self.pending -= 1
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - the caller has given up
            result = type(error).__name__
        self._time.note(name, *about, "->", result, "late", who="simulator")
