"""A service on a store of the test's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chalicelib.bootstrap import Service
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.service.ports import ApiKeyStore, Clock, Telemetry, TimerStore
from chalicelib.settings import load

NOWHERE = Path("/nonexistent")


@dataclass
class HandEngine:
    """An engine put together by a test."""

    timers: TimerStore
    api_keys: ApiKeyStore
    request_budget_ms: float


def service_on(
    store: TimerStore,
    clock: Clock,
    *,
    api_keys: ApiKeyStore | None = None,
    budget_ms: float = float("inf"),
    telemetry: Telemetry | None = None,
    **environment: str,
) -> Service:
    """Return a service on ``store``, set up by ``environment`` alone."""
    keys = api_keys or SQLiteApiKeyStore(DataFolder(NOWHERE))
    engine = HandEngine(timers=store, api_keys=keys, request_budget_ms=budget_ms)
    return Service(load(environment), engine, telemetry=telemetry, clock=clock)
