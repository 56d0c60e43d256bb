"""Calls that fail: the layer between the code under test and what it calls."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from tests.simulation.hub import Hub
from tests.simulation.weather import Weather

T = TypeVar("T")

QUICK_MS = 12.0
SLOW_MS = 6_000.0
STALL_MS = 70_000.0
"""More than twice a lease."""

LATE_MS = 30_000.0


class Fate(enum.Enum):
    """What becomes of one call."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    APPLIED_LATE = "applied late"
    REPEATED = "repeated"
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"


class Faults:
    """Decides what becomes of each call. Switched off, all calls are quick and answered."""

    def __init__(self, hub: Hub, chance: random.Random, weather: Weather) -> None:
        self.on = True
        self.pending = 0
        """Calls that were given up, and are yet to be carried out."""
        self.drawn: Counter[str] = Counter()
        self._hub = hub
        self._chance = chance
        self._weather = weather
        self._fates = (
            (weather.refused, Fate.REFUSED),
            (weather.unanswered, Fate.UNANSWERED),
            (weather.applied_late, Fate.APPLIED_LATE),
            (weather.repeated, Fate.REPEATED),
            (weather.killed / 2, Fate.KILLED_BEFORE),
            (weather.killed / 2, Fate.KILLED_AFTER),
        )

    def call(
        self,
        name: str,
        work: Callable[[], T],
        *about: object,
        lost: Callable[[], Exception],
        repeats: bool = False,
        instant: bool = False,
    ) -> T:
        """Carry ``work`` out at one moment of the time that the call takes, or do not.

        Raises what ``lost`` makes when the caller hears nothing. ``repeats``: the caller is a
        client that tries again by itself. ``instant``: the caller holds a lock of its process,
        for which other tasks of this thread could not wait.
        """
        hub = self._hub
        fate = self._fate(repeats=repeats)
        self._pause(instant=instant)
        if fate is Fate.KILLED_BEFORE:
            self.kill(name, *about)
        if fate is Fate.REFUSED:
            hub.note(name, *about, fate.value)
            raise lost()
        if fate is Fate.APPLIED_LATE:
            hub.note(name, *about, "given up")
            self.pending += 1
            hub.after(self._chance.random() * LATE_MS, lambda: self._too_late(name, work, about))
            raise lost()
        if fate is Fate.REPEATED:
            self._first_try(name, work, about)
            self._pause(instant=instant)
        try:
            result = work()
        except Exception as error:
            hub.note(name, *about, "->", type(error).__name__, fate.value)
            self._end(name, fate, lost, instant=instant)
            raise
        hub.note(name, *about, "->", result, fate.value)
        self._end(name, fate, lost, instant=instant)
        return result

    def delay(self) -> float:
        """Return how long a step takes, in milliseconds."""
        share = self._chance.random()
        if self.on:
            draw = self._chance.random()
            if draw < self._weather.stalled:
                self.drawn["stalled"] += 1
                return STALL_MS * (1 + share) / 2
            if draw < self._weather.stalled + self._weather.slow:
                self.drawn["slow"] += 1
                return SLOW_MS * share
        return QUICK_MS * share

    def happens(self, likely: float, what: str) -> bool:
        """Tell whether something goes wrong that is as likely as given."""
        if not self.on or self._chance.random() >= likely:
            return False
        self.drawn[what] += 1
        return True

    def may_kill(self, what: str, *about: object) -> None:
        """End the process of the running task here, perhaps."""
        if self.happens(self._weather.killed / 2, "killed while sending"):
            self.kill(what, *about)

    def kill(self, what: str, *about: object) -> None:
        """End the process of the running task here."""
        self._hub.note(what, *about, "killed")
        self._hub.task.process.die()

    def _fate(self, *, repeats: bool) -> Fate:
        if not self.on:
            return Fate.ANSWERED
        draw = self._chance.random()
        for likely, fate in self._fates:
            if draw < likely:
                if fate is Fate.REPEATED and not repeats:
                    break
                self.drawn[fate.value] += 1
                return fate
            draw -= likely
        return Fate.ANSWERED

    def _pause(self, *, instant: bool) -> None:
        if not instant:
            self._hub.pause(self.delay())

    def _end(self, name: str, fate: Fate, lost: Callable[[], Exception], *, instant: bool) -> None:
        if fate is Fate.KILLED_AFTER:
            self.kill(name)
        self._pause(instant=instant)
        if fate is Fate.UNANSWERED:
            raise lost()

    def _first_try(self, name: str, work: Callable[[], object], about: tuple[object, ...]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - what the first try met, nobody hears
            result = type(error).__name__
        self._hub.note(name, *about, "->", result, "first try")

    def _too_late(self, name: str, work: Callable[[], object], about: tuple[object, ...]) -> None:
        self.pending -= 1
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - nobody waits for it any more
            result = type(error).__name__
        self._hub.note(name, *about, "->", result, "late", who="world")
