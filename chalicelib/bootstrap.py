"""Settings in, service out: the only place where an engine is chosen."""

from __future__ import annotations

import functools
import secrets
import time
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from chalicelib.domain.errors import InvalidSettings
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.options import EngineOptions
from chalicelib.service.ports import Clock, Engine, NoTelemetry, Telemetry
from chalicelib.service.timers import Timers
from chalicelib.settings import AWS, Settings, load

if TYPE_CHECKING:
    from chalicelib.aws.engine import AwsEngine
    from chalicelib.embedded.engine import EmbeddedEngine
    from chalicelib.service.delivery import Delivery
    from chalicelib.service.sweep import Sweeper

E = TypeVar("E")

REPLAY_WIDTH = 16
"""Timers replayed at once: on AWS each waits for two calls, on one machine they share a commit."""


def wall_clock() -> float:
    """Return epoch milliseconds, UTC."""
    return time.time() * 1000


class Service:
    """The use cases of one process. Each is made when it is first used."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        telemetry: Telemetry | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.telemetry = telemetry or NoTelemetry()
        self._clock = clock

    @cached_property
    def timers(self) -> Timers:
        """Set timers, tell their status, list, move, cancel, purge."""
        return Timers(
            self.engine.timers,
            self._clock,
            allow_purge=self.settings.allow_purge,
            budget_ms=self.engine.request_budget_ms,
            meter=self.telemetry.meter,
        )

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Count and replay timers that failed for good."""
        return DeadLetters(self.engine.timers, self.timers, self._clock, width=REPLAY_WIDTH)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """Issue, list and revoke API keys; tell whose key a request carries."""
        return ApiKeys(self.engine.api_keys, self._clock, secrets.token_bytes)

    @property
    def delivery(self) -> Delivery:
        """Deliver wake-ups, on AWS. Raises ``InvalidSettings`` on another engine."""
        return self.aws.delivery

    @property
    def sweeper(self) -> Sweeper:
        """Find timers that were missed, on AWS. Raises ``InvalidSettings`` on another engine."""
        return self.aws.sweeper

    @property
    def aws(self) -> AwsEngine:
        """The AWS engine. Raises ``InvalidSettings`` on another one."""
        from chalicelib.aws.engine import AwsEngine

        return _only(AwsEngine, self.engine)

    @property
    def embedded(self) -> EmbeddedEngine:
        """The embedded engine. Raises ``InvalidSettings`` on another one."""
        from chalicelib.embedded.engine import EmbeddedEngine

        return _only(EmbeddedEngine, self.engine)


def bootstrap(settings: Settings, *, clock: Clock = wall_clock) -> Service:
    """Return the service that ``settings`` describe. Nothing is opened or started yet."""
    telemetry = _telemetry(settings)
    options = engine_options(settings, clock, telemetry)
    choose = _aws_engine if settings.engine == AWS else _embedded_engine
    return Service(settings, choose(settings, options), telemetry=telemetry, clock=clock)


def engine_options(
    settings: Settings, clock: Clock = wall_clock, telemetry: Telemetry | None = None
) -> EngineOptions:
    """Return what ``settings`` say to an engine, whichever it is."""
    return EngineOptions(
        clock=clock,
        guard=settings.guard,
        lease_ms=settings.lease_ms,
        retention_days=settings.retention_days,
        retry_delays_s=settings.retry_delays_s,
        send_timeout_s=settings.send_timeout_s,
        # A stage keeps its signing secrets in SSM, unless its settings name some.
        signing_keys=settings.signing_keys or (None if settings.in_lambda else ()),
        rate=settings.rate,
        meter=(telemetry or NoTelemetry()).meter,
    )


@functools.lru_cache(maxsize=1)
def service() -> Service:
    """Return this process's service, as the environment describes it."""
    return bootstrap(load())


def _telemetry(settings: Settings) -> Telemetry:
    if not settings.in_lambda:
        return NoTelemetry()
    from chalicelib.aws.telemetry import LambdaTelemetry

    return LambdaTelemetry(settings.stage)


def _aws_engine(settings: Settings, options: EngineOptions) -> Engine:
    from chalicelib.aws.engine import AwsEngine
    from chalicelib.aws.names import Names

    return AwsEngine(Names(settings.stage), options, near_s=settings.near_limit_s)


def _embedded_engine(settings: Settings, options: EngineOptions) -> Engine:
    from chalicelib.embedded.engine import EmbeddedEngine

    return EmbeddedEngine(settings.data_dir, options, max_in_flight=settings.max_in_flight)


def _only(kind: type[E], engine: Engine) -> E:
    if not isinstance(engine, kind):
        raise InvalidSettings(f"this needs the {kind.__name__}: set TIMERS_ENGINE accordingly")
    return engine
