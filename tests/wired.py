"""The API's use cases on a store of the test's, where wiring hands them out."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib import wiring
from chalicelib.dead_letters import DeadLetters
from chalicelib.ports import Clock, TimerStore, Waker
from chalicelib.scheduling import Scheduling


def wire(
    monkeypatch: pytest.MonkeyPatch, store: TimerStore, waker: Waker, clock: Clock, **options: Any
) -> Scheduling:
    """Have every view work on ``store``; return the use cases that it is given."""
    scheduling = Scheduling(store, waker, clock, **options)
    dead_letters = DeadLetters(store, scheduling, clock)
    monkeypatch.setattr(wiring, "scheduling", lambda: scheduling)
    monkeypatch.setattr(wiring, "dead_letters", lambda: dead_letters)
    return scheduling
