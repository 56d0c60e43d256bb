"""How late webhooks arrive on the aws engine, from an emulator's queue through the pump.

The figures are about this code and the emulator, not about AWS.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bench import timers
from bench.figures import BenchError, progress
from bench.lateness import await_arrivals, lateness
from bench.server import free_port, running
from bench.sink import Sink
from chalicelib.domain.errors import StartupError
from local.emulator.ministack import Emulator

COUNT = 1_000
WINDOW_S = 10
SET_OVER_S = 20
DRAIN_S = 30


def measure(sink: Sink) -> dict[str, Any]:
    """Return the lateness of timers that are all due within a few seconds."""
    progress(f"{COUNT} timers due within {WINDOW_S} s, through an emulator's queue")
    with (
        _emulator() as address,
        mock.patch.dict(os.environ, _settings(address)),
        running() as server,
    ):
        ids = timers.create_due_within(WINDOW_S, server.port, [sink.url] * COUNT, over_s=SET_OVER_S)
        await_arrivals(sink, COUNT, timers.LEAD_S + WINDOW_S + DRAIN_S)
        return lateness(ids, timers.due_times(server.port), sink.take())


def _settings(address: str) -> dict[str, str]:
    return {"TIMERS_ENGINE": "aws", "AWS_ENDPOINT_URL": address}


@contextmanager
def _emulator() -> Iterator[str]:
    """Yield the address of an empty emulator."""
    folder = Path(tempfile.mkdtemp(prefix="timers-bench-"))
    emulator = Emulator(folder, free_port())
    try:
        emulator.start()
        yield emulator.address
    except StartupError as error:
        raise BenchError(error.detail) from error
    finally:
        emulator.stop()
        shutil.rmtree(folder, ignore_errors=True)
