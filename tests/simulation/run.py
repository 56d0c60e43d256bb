"""One run: client requests and crashes that the seed draws, then quiescence, then final checks."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

from tests.simulation.environment import Environment
from tests.simulation.invariants.final import no_error_is_unhandled
from tests.simulation.invariants.violation import InvariantViolation
from tests.simulation.processes import Process
from tests.simulation.trace import RunResult

MINUTE_MS = 60_000.0
MAX_QUIESCE_MIN = 300
"""How long outstanding timers may take to settle once no more faults are injected."""

STALLED_CALLS_MS = 180_000.0
"""How much longer the run goes on, for calls that still stall: they must do no harm."""


class Run(abc.ABC):
    """A run on one engine."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    @property
    @abc.abstractmethod
    def _processes(self) -> Sequence[Process]:
        """The present processes."""

    @abc.abstractmethod
    def _actions(self) -> Mapping[Callable[[], None], float]:
        """Client requests and crashes to draw from, each with its weight."""

    def execute(self, seed: int) -> RunResult:
        """Execute the run up to its end, or to the first violated invariant."""
        violation = None
        try:
            self._simulate_or_report()
        except InvariantViolation as error:
            violation = error
        finally:
            for process in self._processes:
                process.kill()
        counts = self._env.oracle.counts + self._env.faults.injected
        return RunResult(seed=seed, violation=violation, trace=self._env.time.trace, counts=counts)

    def _simulate_or_report(self) -> None:
        try:
            self._simulate()
        except Exception as error:  # noqa: BLE001 - any error here is a finding
            no_error_is_unhandled(error)

    def _simulate(self) -> None:
        env, time, rng = self._env, self._env.time, self._env.rng
        lasts_ms = rng.choice((10_000.0, 60_000.0, 300_000.0))
        actions = self._actions()
        count = rng.randint(5, 40)
        for action in rng.choices(list(actions), list(actions.values()), k=count):
            time.after(rng.random() * lasts_ms, action)
        self._start()
        time.run(time.now + lasts_ms)
        env.faults.enabled = False
        time.note("quiesces")
        self._quiesce()
        time.run(time.now + STALLED_CALLS_MS)
        env.oracle.check_end(env.stored.rows(), fault_free=env.profile.fault_free)

    @abc.abstractmethod
    def _start(self) -> None:
        """Start the events that recur during the whole run."""

    def _quiesce(self) -> None:
        for _ in range(MAX_QUIESCE_MIN):
            self._env.time.run(self._env.time.now + MINUTE_MS)
            if self._is_quiescent:
                return

    @property
    def _is_quiescent(self) -> bool:
        outstanding = any(row.next_attempt_at is not None for row in self._env.stored.rows())
        busy = any(process.busy for process in self._processes)
        return not (outstanding or busy or self._env.faults.pending)
