"""The options that every engine takes. They come from the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chalicelib.domain.rate import Rate
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.service.ports import Clock, Meter, unmetered


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The options of every engine. The name of each duration ends in its unit.

    ``signing_keys`` sign every webhook. None means that the engine finds the keys itself. ``rate``
    limits the creates of each tenant. None means no limit.
    """

    clock: Clock
    guard: Guard
    lease_ms: int
    retention_days: float
    retry_delays_s: Sequence[float]
    send_timeout_s: float
    keep_responses: bool
    signing_keys: Sequence[bytes] | None = field(default=(), repr=False)
    rate: Rate | None = None
    meter: Meter = unmetered
