"""The service of one process, on a store that the test chooses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chalicelib.bootstrap import Service
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.service.ports import ApiKeyStore, Clock, Telemetry, TimerStore
from chalicelib.settings import load

NO_FOLDER = DataFolder(Path("/nonexistent"))


@dataclass
class FakeEngine:
    """An engine of the test's stores, which fires nothing."""

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
    """Return a service on ``store`` whose settings are those of ``environment`` alone."""
    keys = api_keys or SQLiteApiKeyStore(NO_FOLDER)
    engine = FakeEngine(timers=store, api_keys=keys, request_budget_ms=budget_ms)
    return Service(load(environment), engine, telemetry=telemetry, clock=clock)
