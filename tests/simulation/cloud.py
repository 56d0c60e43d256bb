"""Histories of the aws engine: functions that a queue, schedules and sweeps invoke."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from chalicelib.domain.errors import TimerNotFound, Unavailable
from tests.simulation import weather
from tests.simulation.callers import Callers
from tests.simulation.disks import Disk
from tests.simulation.history import MINUTE_MS, History
from tests.simulation.hub import Process
from tests.simulation.ledger import Promise
from tests.simulation.machines import Machine
from tests.simulation.platform import Invocation, Platform
from tests.simulation.surroundings import Surroundings
from tests.simulation.trace import Told

FRONTS = 2
CONSUMERS = 3

Disks = Callable[[random.Random], AbstractContextManager[Disk]]


def tell(seed: int, disks: Disks) -> Told:
    """Run the history of ``seed``."""
    chance = random.Random(seed)
    with disks(chance) as disk:
        around = Surroundings.begin(chance, weather.draw(chance), disk)
        return CloudHistory(around, disk).tell(seed)


class CloudHistory(History):
    """A history on a disk of its own."""

    def __init__(self, around: Surroundings, disk: Disk) -> None:
        super().__init__(around)
        platform = Platform(around.hub, around.chance, around.weather, around.faults, self._invoke)

        def machine(name: str) -> Machine:
            return Machine(name, around, disk, platform)

        self._fronts = [machine(f"api-{number}") for number in range(FRONTS)]
        self._consumers = [machine(f"queue-{number}") for number in range(CONSUMERS)]
        self._sweeper = machine("sweeper")
        self._callers = Callers(around, self._fronts)

    @property
    def _machines(self) -> list[Machine]:
        return [*self._fronts, *self._consumers, self._sweeper]

    @property
    def _processes(self) -> Sequence[Process]:
        return [machine.process for machine in self._machines]

    def _actions(self) -> Mapping[Callable[[], None], float]:
        crash = 0 if self._around.weather.calm else 3
        return {
            **self._callers.actions(),
            self._poke: 4,
            self._sweep: 4,
            self._crash: crash,
            self._crash_all: crash / 3,
        }

    def _begin(self) -> None:
        self._around.hub.after(self._around.chance.random() * MINUTE_MS, self._sweep_every_minute)

    def _poke(self) -> None:
        promise = self._callers.pick()
        if promise is not None:
            self._callers.request(lambda machine: self._poke_at(machine, promise))

    def _poke_at(self, machine: Machine, promise: Promise) -> None:
        try:
            machine.delivery.wake_or_deliver(promise.tenant, promise.id or 0)
        except TimerNotFound:
            self._around.ledger.told(promise, None, machine.scheduling.now, self._around.hub.now)

    def _invoke(self, invocation: Invocation) -> bool:
        for machine in self._consumers:
            if machine.idle:
                machine.invoke(invocation)
                return True
        return False

    def _sweep_every_minute(self) -> None:
        self._sweep()
        self._around.hub.after(MINUTE_MS, self._sweep_every_minute)

    def _sweep(self) -> None:
        if self._sweeper.process.alive:
            self._sweeper.process.start(self._sweep_once)

    def _sweep_once(self) -> None:
        try:
            swept = self._sweeper.sweeper.sweep()
            self._around.hub.note("has swept", swept)
        except Unavailable as error:
            self._around.hub.note("has not swept", error.detail)

    def _crash(self) -> None:
        machine = self._around.chance.choice(self._machines)
        if machine.process.alive:
            machine.kill()

    def _crash_all(self) -> None:
        for machine in self._machines:
            if machine.process.alive:
                machine.kill()
