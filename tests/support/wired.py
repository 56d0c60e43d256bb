"""A service on a store of the test's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chalicelib.bootstrap import Service
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.service.ports import ApiKeyStore, Clock, TimerStore, Waker
from chalicelib.settings import load

NOWHERE = Path("/nonexistent")


@dataclass
class HandEngine:
    """An engine put together by a test."""

    timers: TimerStore
    waker: Waker
    api_keys: ApiKeyStore
    request_budget_ms: float = float("inf")


def service_on(
    store: TimerStore,
    waker: Waker,
    clock: Clock,
    *,
    api_keys: ApiKeyStore | None = None,
    budget_ms: float = float("inf"),
    **environment: str,
) -> Service:
    """Return a service on ``store``, set up by ``environment`` alone."""
    engine = HandEngine(
        timers=store,
        waker=waker,
        api_keys=api_keys or SQLiteApiKeyStore(DataFolder(NOWHERE)),
        request_budget_ms=budget_ms,
    )
    return Service(load(environment), engine, clock=clock)
