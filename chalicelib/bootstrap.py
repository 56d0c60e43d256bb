"""Makes the service that the settings describe. An engine is chosen nowhere else.

Each engine is imported only when it is chosen: its libraries are slow to load, and a Lambda does
not have those of the embedded engine.
"""

from __future__ import annotations

import functools
import secrets
import time
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from chalicelib.domain.errors import InvalidSettings
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.bulk import Bulk
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.health import HealthCheck
from chalicelib.service.movable_clock import MovableClock
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
"""Timers replayed at once. On AWS each waits for two calls; on one machine they share a commit."""


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
        """Set, get, list, cancel, move and purge timers."""
        return Timers(
            self.engine.timers,
            self._clock,
            allow_purge=self.settings.allow_purge,
            budget_ms=self.engine.request_budget_ms,
            meter=self.telemetry.meter,
        )

    @cached_property
    def health(self) -> HealthCheck:
        """Check whether the store is ready."""
        return HealthCheck(self.timers.check)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Count and replay timers that failed for good."""
        return DeadLetters(self.engine.timers, self.timers, self._clock, width=REPLAY_WIDTH)

    @cached_property
    def bulk(self) -> Bulk:
        """Cancel, fire and move many timers."""
        return Bulk(self.engine.timers, self.timers, self._clock, width=REPLAY_WIDTH)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """Issue, list and revoke API keys, and find the tenant of a request."""
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

        return _require(AwsEngine, self.engine)

    @property
    def embedded(self) -> EmbeddedEngine:
        """The embedded engine. Raises ``InvalidSettings`` on another one."""
        return _require_embedded(self.engine)

    @property
    def clock(self) -> MovableClock:
        """The test clock. Raises ``InvalidSettings`` on another engine."""
        return self.embedded.clock


def bootstrap(settings: Settings, *, clock: Clock = wall_clock) -> Service:
    """Return the service that ``settings`` describe. Nothing is opened or started yet."""
    telemetry = _telemetry(settings)
    options = engine_options(settings, clock, telemetry)
    new_engine = _aws_engine if settings.engine == AWS else _embedded_engine
    engine = new_engine(settings, options)
    if settings.test_clock:
        clock = _require_embedded(engine).clock
    return Service(settings, engine, telemetry=telemetry, clock=clock)


def engine_options(
    settings: Settings, clock: Clock = wall_clock, telemetry: Telemetry | None = None
) -> EngineOptions:
    """Return the options that ``settings`` give to either engine."""
    return EngineOptions(
        clock=clock,
        guard=settings.guard,
        lease_ms=settings.lease_ms,
        retention_days=settings.retention_days,
        retry_delays_s=settings.retry_delays_s,
        send_timeout_s=settings.send_timeout_s,
        keep_responses=settings.keep_responses,
        # None: a stage has its signing secrets in SSM, unless the settings give some. Outside a
        # Lambda no secrets means that webhooks are not signed.
        signing_keys=settings.signing_keys or (None if settings.in_lambda else ()),
        rate=settings.rate,
        meter=(telemetry or NoTelemetry()).meter,
    )


@functools.lru_cache(maxsize=1)
def service() -> Service:
    """Return the service of this process, which the environment variables describe."""
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
    from chalicelib.domain.quota import Quota
    from chalicelib.embedded.egress import TENANT_SHARE, EgressLimits
    from chalicelib.embedded.engine import EmbeddedEngine

    limits = EgressLimits(
        max_in_flight=settings.max_in_flight,
        # Without keys there is one tenant, from which nothing need be kept back.
        tenant_share=TENANT_SHARE if settings.needs_key else 1.0,
        tenant_per_s=settings.calls_per_s,
        receiver_per_s=settings.receiver_calls_per_s,
        receiver_connections=settings.receiver_connections,
        failing_receiver_per_s=settings.failing_receiver_calls_per_s,
    )
    quota = Quota(timers=settings.stored_timers, bytes=settings.stored_bytes)
    return EmbeddedEngine(
        settings.data_dir, options, egress=limits, quota=quota, test_clock=settings.test_clock
    )


def _require_embedded(engine: Engine) -> EmbeddedEngine:
    from chalicelib.embedded.engine import EmbeddedEngine

    return _require(EmbeddedEngine, engine)


def _require(kind: type[E], engine: Engine) -> E:
    """Return ``engine`` if it is of this kind, else raise ``InvalidSettings``."""
    if not isinstance(engine, kind):
        raise InvalidSettings(f"this needs the {kind.__name__}: set TIMERS_ENGINE accordingly")
    return engine
