"""One history: callers, sweeps and crashes as a seed draws them, then peace, then checks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from chalicelib.dead_letters import FailedTimers
from chalicelib.errors import (
    TimerChanged,
    TimerExpired,
    TimerInFlight,
    TimerNotFailed,
    TimerNotFound,
    TimersError,
    Unavailable,
)
from chalicelib.scheduling import Order
from chalicelib.timer import Timer
from tests.clock import START
from tests.simulation import weather as weathers
from tests.simulation.disks import Disk
from tests.simulation.faults import LATE_MS, Faults
from tests.simulation.hub import Hub
from tests.simulation.ledger import Broken, Ledger, Promise
from tests.simulation.machines import Machine, Surroundings
from tests.simulation.platform import Invocation, Platform
from tests.simulation.receivers import Receivers
from tests.simulation.trace import Told

TENANTS = ("acme", "globex")
POLICIES_S = ((), (5.0,), (5.0, 60.0), (2.0, 5.0, 30.0))
CALLERS = 2
CONSUMERS = 3
MINUTE_MS = 60_000.0
PEACE_MIN = 300
"""How long what is outstanding has to come to its end once nothing goes wrong any more."""

REST_MS = 180_000.0
"""How long after that whatever still stalls goes on: it must do no harm."""

CLAIMED = 0.5
"""How often callers turn to a timer that a sender has claimed, if there is one."""

Disks = Callable[[random.Random], AbstractContextManager[Disk]]


def tell(seed: int, disks: Disks) -> Told:
    """Run the history of ``seed``."""
    chance = random.Random(seed)
    with disks(chance) as disk:
        return History(seed, chance, disk).run()


class History:
    """A history on a disk of its own."""

    def __init__(self, seed: int, chance: random.Random, disk: Disk) -> None:
        self._seed = seed
        self._chance = chance
        self._disk = disk
        self._hub = hub = Hub(START + chance.random() * 1000)
        self._weather = weather = weathers.draw(chance)
        self._faults = faults = Faults(hub, chance, weather)
        delays_s = chance.choice(POLICIES_S)
        self._ledger = Ledger(hub, attempts=len(delays_s) + 1, skewed=weather.skew_ms > 0)
        around = Surroundings(
            hub=hub,
            chance=chance,
            weather=weather,
            faults=faults,
            ledger=self._ledger,
            disk=disk,
            receivers=Receivers(chance, weather, faults),
            retry_delays_s=delays_s,
            tokens=itertools.count(1),
        )
        self._platform = platform = Platform(hub, chance, weather, faults, self._invoke)
        self._callers = [Machine(f"api-{n}", around, platform) for n in range(CALLERS)]
        self._consumers = [Machine(f"queue-{n}", around, platform) for n in range(CONSUMERS)]
        self._sweeper = Machine("sweeper", around, platform)

    def run(self) -> Told:
        """Let it happen, up to the first rule that is broken."""
        broken = None
        try:
            self._live()
        except Broken as error:
            broken = error
        except Exception as error:  # noqa: BLE001 - any, and it is reported with its cause
            broken = Broken("nothing fails in a way that nobody handles", repr(error))
            broken.__cause__ = error
        finally:
            for machine in self._machines:
                machine.process.kill()
        counted = self._ledger.counted + self._faults.drawn
        return Told(seed=self._seed, broken=broken, trace=self._hub.trace, counted=counted)

    @property
    def _machines(self) -> list[Machine]:
        return [*self._callers, *self._consumers, self._sweeper]

    def _live(self) -> None:
        hub, chance = self._hub, self._chance
        hub.note("begins", self._weather)
        lasts_ms = chance.choice((10_000.0, 60_000.0, 300_000.0))
        for _ in range(chance.randint(5, 40)):
            hub.after(chance.random() * lasts_ms, self._drawn())
        hub.after(chance.random() * MINUTE_MS, self._sweep_every_minute)
        hub.run(hub.now + lasts_ms)
        self._faults.on = False
        hub.note("peace")
        self._make_peace()
        hub.run(hub.now + REST_MS)
        self._ledger.check_end(self._disk.rows(), calm=self._weather.calm)

    def _make_peace(self) -> None:
        for _ in range(PEACE_MIN):
            self._hub.run(self._hub.now + MINUTE_MS)
            if self._at_rest:
                return

    @property
    def _at_rest(self) -> bool:
        outstanding = any(row.next_attempt_at is not None for row in self._disk.rows())
        at_work = any(machine.process.busy for machine in self._machines)
        return not (outstanding or at_work or self._faults.pending)

    def _drawn(self) -> Callable[[], None]:
        """Return something for a caller, or fate, to do."""
        calm = self._weather.calm
        crash = 0 if calm else 3
        actions: dict[Callable[[], None], float] = {
            self._set: 40,
            self._ask: 15,
            self._list: 6,
            self._cancel: 12,
            self._move: 8,
            self._replay: 5,
            self._replay_all: 2,
            self._purge: 1,
            self._poke: 4,
            self._sweep: 4,
            self._crash: crash,
            self._crash_all: crash / 3,
        }
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        return action

    # What callers do.

    def _request(self, work: Callable[[Machine], None]) -> None:
        """Let a caller make a request, if there is a process that takes it."""
        machine = self._chance.choice(self._callers)
        if machine.process.alive:
            machine.process.start(partial(self._answer, work, machine))

    def _answer(self, work: Callable[[Machine], None], machine: Machine) -> None:
        try:
            work(machine)
        except Unavailable as error:
            self._hub.note("answers 503", error.detail)

    def _set(self) -> None:
        chance = self._chance
        tenant = chance.choice(TENANTS)
        wish = Order(
            url="",
            delay_ms=self._delay_ms(),
            max_attempts=chance.choice((None, None, 1, 2)),
            timeout_s=chance.choice((None, None, 1, 5)),
            on_failure_url=chance.choice((None, "wanted")),
        )
        self._request(lambda machine: self._set_at(machine, tenant, wish))

    def _delay_ms(self) -> int:
        longest_ms = self._chance.choice((0, 2_000, 5_000, 30_000, 120_000, 1_500_000))
        return int(self._chance.random() * longest_ms)

    def _set_at(self, machine: Machine, tenant: str, wish: Order) -> None:
        promise = self._ledger.asked(tenant, wish, machine.process.clock())
        self._hub.note("POST /timers", tenant, promise.order)
        timer = machine.scheduling.set(tenant, promise.order)
        self._ledger.acknowledged(promise, timer)
        machine.check_woken(timer.wakeup(), promise.asked_at)
        self._hub.note("answers 201", promise)

    def _pick(self) -> Promise | None:
        """Return a timer to ask for something, often one that is being called just now."""
        known = [each for each in self._ledger.promises if each.acknowledged_at is not None]
        claimed = [each for each in known if each.leases and not each.leases[-1].settled]
        if claimed and self._chance.random() < CLAIMED:
            return self._chance.choice(claimed)
        return self._chance.choice(known) if known else None

    def _ask(self) -> None:
        promise = self._pick()
        if promise is not None:
            self._request(lambda machine: self._ask_at(machine, promise))

    def _ask_at(self, machine: Machine, promise: Promise) -> None:
        since = self._hub.now
        try:
            timer = machine.scheduling.get(promise.tenant, promise.id or 0)
        except TimerNotFound:
            timer = None
        self._ledger.told(promise, timer, machine.scheduling.now, since)

    def _list(self) -> None:
        tenant, limit = self._chance.choice(TENANTS), self._chance.randint(1, 5)
        self._request(lambda machine: self._list_at(machine, tenant, limit))

    def _list_at(self, machine: Machine, tenant: str, limit: int) -> None:
        since = self._hub.now
        timers: list[Timer] = []
        before: int | None = None
        while True:
            page = machine.scheduling.list(tenant, before=before, status=None, limit=limit)
            timers += page.timers
            before = page.before
            if before is None:
                break
        self._ledger.listed(tenant, timers, machine.scheduling.now, since)

    def _cancel(self) -> None:
        promise = self._pick()
        if promise is not None:
            self._request(lambda machine: self._cancel_at(machine, promise))

    def _cancel_at(self, machine: Machine, promise: Promise) -> None:
        if promise.kept and self._disk.row(promise.tenant, promise.id or 0) is None:
            raise Broken("an acknowledged timer is there", promise)
        removal = self._ledger.removing([promise])
        self._hub.note("DELETE", promise)
        try:
            machine.scheduling.cancel(promise.tenant, promise.id or 0)
        except TimerInFlight:
            removal.refused = True
            self._hub.note("answers 409", promise)
            return
        except TimerNotFound:
            # Removed before, or by this very request, whose client tried again.
            self._hub.note("answers 404", promise)
        removal.acknowledged_at = self._hub.now
        self._hub.note("answers 204", promise)

    def _move(self) -> None:
        promise, delay_ms = self._pick(), self._delay_ms()
        if promise is not None:
            self._request(lambda machine: self._move_at(machine, promise, delay_ms))

    def _move_at(self, machine: Machine, promise: Promise, delay_ms: int) -> None:
        asked = machine.process.clock()
        since = self._hub.now
        self._hub.note("PATCH", promise, delay_ms)
        try:
            timer = machine.scheduling.move(promise.tenant, promise.id or 0, delay_ms)
        except (TimerExpired, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        self._ledger.moved(promise, timer, delay_ms, asked, machine.process.clock())
        machine.check_woken(timer.wakeup(), since)
        self._hub.note("answers 200", promise, timer.due_at)

    def _replay(self) -> None:
        promise = self._pick()
        if promise is not None:
            self._request(lambda machine: self._replay_at(machine, promise))

    def _replay_at(self, machine: Machine, promise: Promise) -> None:
        since = self._hub.now
        self._hub.note("POST replay", promise)
        try:
            timer = machine.dead_letters.replay(promise.tenant, promise.id or 0)
        except (TimerNotFailed, TimerChanged, TimerInFlight, TimerNotFound) as refusal:
            self._refused(promise, refusal)
            return
        machine.check_woken(timer.wakeup(), since)
        self._hub.note("answers 202", promise)

    def _replay_all(self) -> None:
        tenant = self._chance.choice(TENANTS)
        self._request(lambda machine: self._replay_all_at(machine, tenant))

    def _replay_all_at(self, machine: Machine, tenant: str) -> None:
        self._hub.note("POST /timers/replay", tenant)
        replayed = machine.dead_letters.replay_all(tenant, FailedTimers(), per_s=100)
        self._hub.note("answers 200", replayed)

    def _refused(self, promise: Promise, refusal: TimersError) -> None:
        self._hub.note("answers", refusal.code, promise)
        if isinstance(refusal, TimerNotFound) and promise.kept:
            raise Broken("an acknowledged timer is there", promise)

    def _purge(self) -> None:
        tenant = self._chance.choice(TENANTS)
        self._request(lambda machine: self._purge_at(machine, tenant))

    def _purge_at(self, machine: Machine, tenant: str) -> None:
        removal = self._ledger.purging(tenant)
        self._hub.note("DELETE /timers", tenant)
        try:
            machine.scheduling.purge(tenant)
            self._ledger.purged(tenant, removal)
        finally:
            self._hub.after(LATE_MS, partial(self._ledger.purge_over, tenant, removal))
        self._hub.note("answers 200", tenant)

    def _poke(self) -> None:
        promise = self._pick()
        if promise is not None:
            self._request(lambda machine: self._poke_at(machine, promise))

    def _poke_at(self, machine: Machine, promise: Promise) -> None:
        try:
            machine.delivery.wake_or_deliver(promise.tenant, promise.id or 0)
        except TimerNotFound:
            self._ledger.told(promise, None, machine.scheduling.now, self._hub.now)

    # What happens anyway.

    def _invoke(self, invocation: Invocation) -> bool:
        for machine in self._consumers:
            if machine.idle:
                machine.invoke(invocation)
                return True
        return False

    def _sweep_every_minute(self) -> None:
        self._sweep()
        self._hub.after(MINUTE_MS, self._sweep_every_minute)

    def _sweep(self) -> None:
        if self._sweeper.process.alive:
            self._sweeper.process.start(self._sweep_once)

    def _sweep_once(self) -> None:
        try:
            swept = self._sweeper.sweeper.sweep()
            self._hub.note("has swept", swept)
        except Unavailable as error:
            self._hub.note("has not swept", error.detail)

    def _crash(self) -> None:
        machine = self._chance.choice(self._machines)
        if machine.process.alive:
            machine.kill()

    def _crash_all(self) -> None:
        for machine in self._machines:
            if machine.process.alive:
                machine.kill()
