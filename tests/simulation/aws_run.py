"""Runs of the AWS engine: functions that clients, a queue, schedules and sweeps invoke."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from chalicelib.domain.errors import TimerNotFound, Unavailable
from tests.simulation import fault_profile
from tests.simulation.clients import Clients
from tests.simulation.environment import Environment
from tests.simulation.function_instances import FunctionInstance
from tests.simulation.processes import Process
from tests.simulation.promises import Promise
from tests.simulation.run import MINUTE_MS, Run
from tests.simulation.simulated_aws import Invocation, SimulatedAws
from tests.simulation.storage import NewStorage, Storage
from tests.simulation.trace import RunResult

API_INSTANCES = 2
QUEUE_INSTANCES = 3


def execute(seed: int, new_storage: NewStorage) -> RunResult:
    """Execute the run of ``seed``."""
    rng = random.Random(seed)
    with new_storage(rng) as storage:
        env = Environment.create(rng, fault_profile.draw_for_aws(rng), storage)
        return AwsRun(env, storage).execute(seed)


class AwsRun(Run):
    """A run with a storage of its own."""

    def __init__(self, env: Environment, storage: Storage) -> None:
        super().__init__(env)
        aws = SimulatedAws(env.time, env.rng, env.profile, env.faults, self._invoke)

        def instance(name: str) -> FunctionInstance:
            return FunctionInstance(name, env, storage, aws)

        self._apis = [instance(f"api-{number}") for number in range(API_INSTANCES)]
        self._queue_instances = [instance(f"queue-{number}") for number in range(QUEUE_INSTANCES)]
        self._sweeper = instance("sweeper")
        self._clients = Clients(env, self._apis)

    @property
    def _instances(self) -> list[FunctionInstance]:
        return [*self._apis, *self._queue_instances, self._sweeper]

    @property
    def _processes(self) -> Sequence[Process]:
        return [instance.process for instance in self._instances]

    def _actions(self) -> Mapping[Callable[[], None], float]:
        crash = 0 if self._env.profile.fault_free else 3
        return {
            **self._clients.actions(),
            self._wake: 4,
            self._sweep: 4,
            self._crash: crash,
            self._crash_all: crash / 3,
        }

    def _start(self) -> None:
        self._env.time.after(self._env.rng.random() * MINUTE_MS, self._sweep_every_minute)

    def _wake(self) -> None:
        """Invoke the webhook function for some timer, as if a schedule had come."""
        promise = self._clients.pick()
        if promise is not None:
            self._clients.request(lambda instance: self._wake_on(instance, promise))

    def _wake_on(self, instance: FunctionInstance, promise: Promise) -> None:
        try:
            instance.delivery.wake_or_deliver(promise.tenant, promise.id or 0)
        except TimerNotFound:
            self._env.oracle.read(promise, None, instance.timers.now, self._env.time.now)

    def _invoke(self, invocation: Invocation) -> bool:
        for instance in self._queue_instances:
            if instance.idle:
                instance.invoke(invocation)
                return True
        return False

    def _sweep_every_minute(self) -> None:
        self._sweep()
        self._env.time.after(MINUTE_MS, self._sweep_every_minute)

    def _sweep(self) -> None:
        if self._sweeper.process.alive:
            self._sweeper.process.start(self._sweep_once)

    def _sweep_once(self) -> None:
        try:
            swept = self._sweeper.sweeper.sweep()
            self._env.time.note("has swept", swept)
        except Unavailable as error:
            self._env.time.note("has not swept", error.detail)

    def _crash(self) -> None:
        instance = self._env.rng.choice(self._instances)
        if instance.process.alive:
            instance.kill()

    def _crash_all(self) -> None:
        for instance in self._instances:
            if instance.process.alive:
                instance.kill()
