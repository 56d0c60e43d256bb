"""Requests per second: measured by wrk where that is installed, otherwise by our own client."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from bench import client
from bench.figures import BenchError, percentile
from bench.server import HOST

_WRK = shutil.which("wrk")
WRK_TIMEOUT_S = 60
CLIENT = "wrk" if _WRK else "own client (asyncio, uvloop)"

# wrk counts every status above 399 as an error.
_SCRIPT = """
wrk.method = %s
wrk.body = %s
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"per_second": %%.1f, "p50_ms": %%.3f, "p99_ms": %%.3f, "errors": %%d}\\n',
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def measure(
    port: int, path: str, body: str | None, *, connections: int, duration_s: int
) -> dict[str, Any]:
    """Return requests per second, latency (ms) and errors of a POST of ``body``, or of a GET."""
    if _WRK:
        plan = [f"-c{connections}", f"-d{duration_s}s", f"http://{HOST}:{port}{path}"]
        return _by_wrk(_WRK, plan, body)
    request = client.get(path) if body is None else client.post(path, body)
    load = uvloop.run(client.hammer(port, request, connections, duration_s))
    ordered = sorted(load.durations_ms)
    return {
        "per_second": round(len(ordered) / load.elapsed_s, 1),
        "p50_ms": round(percentile(ordered, 50), 3),
        "p99_ms": round(percentile(ordered, 99), 3),
        "errors": load.errors,
    }


def _by_wrk(wrk: str, plan: list[str], body: str | None) -> dict[str, Any]:
    """Return the figures of wrk, which our script prints as JSON to the standard error."""
    method = "GET" if body is None else "POST"
    script = _SCRIPT % (json.dumps(method), "nil" if body is None else json.dumps(body))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script)
        ran = subprocess.run(
            # One thread, so that most of the machine is left for the server.
            [wrk, "-t1", "-s", str(file), *plan],
            capture_output=True,
            text=True,
            timeout=WRK_TIMEOUT_S,
            check=False,
        )
    try:
        figures: dict[str, Any] = json.loads(ran.stderr)
    except ValueError as error:
        raise BenchError(f"wrk failed: {ran.stdout[-300:]}{ran.stderr[-300:]}") from error
    return figures
