"""How long imports take at a cold start on AWS, compared with those of the libraries alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from bench.figures import progress
from bench.sink import Sink

ROUNDS = 15
LIMIT = 1.2
"""How long importing the API may take, as a multiple of the baseline."""

_SERVICE = "from chalicelib.bootstrap import service"
_OBSERVE = (
    "import types; context = types.SimpleNamespace(aws_request_id='1'); "
    "service().telemetry.observe(context).__enter__()"
)
"""The telemetry of the first event, which imports its own modules."""

STARTS = {
    "nothing": "",
    "baseline": "import chalice, pydantic, boto3; boto3.client('dynamodb')",
    "app": "import app",
    "app_until_first_event": f"import app; {_SERVICE}; service().timers; {_OBSERVE}",
    "authorizer_until_first_event": f"import chalicelib.functions; {_SERVICE}; service().api_keys",
    "webhook_until_first_event": (
        f"import chalicelib.functions; {_SERVICE}; service().delivery; {_OBSERVE}"
    ),
    "sweeper_until_first_event": (
        f"import chalicelib.functions; {_SERVICE}; service().sweeper; {_OBSERVE}"
    ),
}

_ENVIRONMENT = {
    "AWS_LAMBDA_FUNCTION_NAME": "timers-dev",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "PYTHONDONTWRITEBYTECODE": "",  # a Lambda's package is compiled too
}


def measure(_sink: Sink) -> dict[str, Any]:
    """Return the median time of each start (ms). The starts take turns, each in a new process."""
    progress(f"imports, {ROUNDS} rounds")
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(ROUNDS + 1):
        for name, code in STARTS.items():
            taken[name].append(_start_ms(code))
    # The first round is dropped: it compiled the modules and filled the cache of the disk.
    median = {name: statistics.median(times[1:]) for name, times in taken.items()}
    net = {name: median[name] - median["nothing"] for name in STARTS if name != "nothing"}
    return {
        "rounds": ROUNDS,
        "ms": {name: round(ms, 1) for name, ms in net.items()},
        "ratio": {
            name: round(net[name] / net["baseline"], 2) for name in net if name != "baseline"
        },
        "limit": LIMIT,
    }


def _start_ms(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=os.environ | _ENVIRONMENT, check=True)
    return (time.perf_counter() - began) * 1000
