"""The interface of a storage: the stored timers of one run, which outlive every process."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from chalicelib.aws.waking_store import ArmableStore
from chalicelib.domain.timer import Timer
from chalicelib.service.ports import DueIndex
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.oracle import Oracle
from tests.simulation.processes import Process
from tests.simulation.virtual_time import VirtualTime


class StoredTimers(Protocol):
    """The stored timers of one run, for checks: read at once, and without faults."""

    def row(self, tenant: str, timer_id: int) -> Timer | None:
        """Return one timer, None if it is not stored."""

    def rows(self) -> Sequence[Timer]:
        """Return all timers."""


class Storage(StoredTimers, Protocol):
    """Stored timers to which processes connect, through calls that may fail."""

    def connect(
        self, process: Process, time: VirtualTime, faults: FaultInjector, oracle: Oracle
    ) -> tuple[ArmableStore, DueIndex]:
        """Return the rows of timers and the due index of a new process."""


NewStorage = Callable[[random.Random], AbstractContextManager[Storage]]
"""Opens an empty storage for one run."""
