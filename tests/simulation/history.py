"""One history: callers and crashes as a seed draws them, then peace, then checks."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

from tests.simulation.hub import Process
from tests.simulation.ledger import Broken
from tests.simulation.surroundings import Surroundings
from tests.simulation.trace import Told

MINUTE_MS = 60_000.0
PEACE_MIN = 300
"""How long what is outstanding has to come to its end once nothing goes wrong any more."""

REST_MS = 180_000.0
"""How long after that whatever still stalls goes on: it must do no harm."""


class History(abc.ABC):
    """A history on one engine."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    @property
    @abc.abstractmethod
    def _processes(self) -> Sequence[Process]:
        """The processes there are now."""

    @abc.abstractmethod
    def _actions(self) -> Mapping[Callable[[], None], float]:
        """What callers and fate may do, and how often one thing as against another."""

    def tell(self, seed: int) -> Told:
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
            for process in self._processes:
                process.kill()
        counted = self._around.ledger.counted + self._around.faults.drawn
        return Told(seed=seed, broken=broken, trace=self._around.hub.trace, counted=counted)

    def _live(self) -> None:
        around, hub, chance = self._around, self._around.hub, self._around.chance
        lasts_ms = chance.choice((10_000.0, 60_000.0, 300_000.0))
        actions = self._actions()
        count = chance.randint(5, 40)
        for action in chance.choices(list(actions), list(actions.values()), k=count):
            hub.after(chance.random() * lasts_ms, action)
        self._begin()
        hub.run(hub.now + lasts_ms)
        around.faults.on = False
        hub.note("peace")
        self._make_peace()
        hub.run(hub.now + REST_MS)
        around.ledger.check_end(around.disk.rows(), calm=around.weather.calm)

    @abc.abstractmethod
    def _begin(self) -> None:
        """Begin what goes on all the time."""

    def _make_peace(self) -> None:
        for _ in range(PEACE_MIN):
            self._around.hub.run(self._around.hub.now + MINUTE_MS)
            if self._at_rest:
                return

    @property
    def _at_rest(self) -> bool:
        outstanding = any(row.next_attempt_at is not None for row in self._around.disk.rows())
        at_work = any(process.busy for process in self._processes)
        return not (outstanding or at_work or self._around.faults.pending)
