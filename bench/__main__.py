"""``python -m bench`` measures the offline server on this machine and prints one JSON document."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from bench import (
    backlog,
    batch,
    hanging,
    idle,
    imports,
    lateness,
    memory,
    queue_path,
    sharing,
    throughput,
)
from bench.figures import BenchError, progress
from bench.sink import Sink, receiving

MEASUREMENTS: dict[str, Callable[[Sink], dict[str, Any]]] = {
    "throughput": throughput.measure,
    "lateness": lateness.measure,
    "backlog": backlog.measure,
    "hanging": hanging.measure,
    "idle": idle.measure,
    "sharing": sharing.measure,
    "batch": batch.measure,
    "memory": memory.measure,
    "queue": queue_path.measure,
    "imports": imports.measure,
}
NOT_BY_DEFAULT = ("queue", "sharing")
"""The queue path needs an emulator of AWS, which is installed when it is first asked for.
Sharing takes several minutes."""

BY_DEFAULT = [name for name in MEASUREMENTS if name not in NOT_BY_DEFAULT]


def main() -> int:
    """Measure and print; return 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=BY_DEFAULT)
    chosen = parser.parse_args().only
    # SystemExit runs the `finally` blocks that stop the server; SIGTERM by itself would not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    document: dict[str, Any] = {"machine": machine()}
    for name in chosen:
        document[name] = _measure(name)
    document["took_s"] = round(time.monotonic() - began, 1)
    print(json.dumps(document, indent=2))
    return int(any("error" in document[name] for name in chosen))


def _measure(name: str) -> dict[str, Any]:
    try:
        with receiving() as sink:
            return MEASUREMENTS[name](sink)
    except (BenchError, OSError, TimeoutError, subprocess.SubprocessError) as error:
        reason = str(error) or type(error).__name__
        progress(f"{name} failed: {reason}")
        return {"error": reason}


def machine() -> dict[str, Any]:
    """Return the machine and the settings, on which the figures depend."""
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "settings": {name: os.environ[name] for name in os.environ if name.startswith("TIMERS_")},
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
