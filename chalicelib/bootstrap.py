"""Settings in, service out: the only place where an engine is chosen."""

from __future__ import annotations

import functools
import secrets
import time
from functools import cached_property

from chalicelib import wiring
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.delivery import Delivery
from chalicelib.service.ports import ApiKeyStore, Clock, Engine, Meter, Observe, TimerStore, Waker
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers
from chalicelib.settings import Settings, load

REPLAY_THREADS = 16
"""Timers replayed at once: on AWS each waits for two calls, on one machine they share a commit."""


def wall_clock() -> float:
    """Return epoch milliseconds, UTC."""
    return time.time() * 1000


class Service:
    """The use cases of one process. Each is made when it is first used."""

    def __init__(self, settings: Settings, engine: Engine, *, clock: Clock = wall_clock) -> None:
        self.settings = settings
        self._engine = engine
        self._clock = clock

    @cached_property
    def timers(self) -> Timers:
        """Set timers, tell their status, list, move, cancel, purge."""
        return Timers(
            self._engine.timers,
            self._engine.waker,
            self._clock,
            allow_purge=self.settings.allow_purge,
            budget_ms=self._engine.request_budget_ms,
            meter=self.meter,
        )

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Count and replay timers that failed for good."""
        return DeadLetters(self._engine.timers, self.timers, self._clock, width=REPLAY_THREADS)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """Issue, list and revoke API keys; tell whose key a request carries."""
        return ApiKeys(self._engine.api_keys, self._clock, secrets.token_bytes)

    @property
    def delivery(self) -> Delivery:
        """Deliver wake-ups."""
        return wiring.delivery()

    @property
    def sweeper(self) -> Sweeper:
        """Find timers whose wake-up was lost."""
        return wiring.sweeper()

    @property
    def meter(self) -> Meter:
        """Note one value of a metric."""
        return wiring.meter()

    @property
    def observe(self) -> Observe:
        """Log and count what one invocation of a Lambda does."""
        return wiring.observed


class _Engine:
    """Interim: the engine that wiring chooses."""

    @property
    def timers(self) -> TimerStore:
        return wiring._store()

    @property
    def api_keys(self) -> ApiKeyStore:
        return wiring._key_store()

    @property
    def waker(self) -> Waker:
        return wiring._waker()

    @property
    def request_budget_ms(self) -> float:
        return wiring.REQUEST_MS


def bootstrap(settings: Settings) -> Service:
    """Return the service as ``settings`` want it. Nothing is opened yet."""
    return Service(settings, _Engine())


@functools.lru_cache(maxsize=1)
def service() -> Service:
    """Return this process's service."""
    return bootstrap(load())
