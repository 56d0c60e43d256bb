"""The modules that a Lambda loads before its first event: each makes a cold start longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from infra.package import ROOT

IN_LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "timers-dev-webhook",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "TIMERS_STAGE": "dev",
}
OFFLINE_ONLY = {
    "aiohappyeyeballs",
    "greenlet",
    "httptools",
    "uvloop",
    "sqlite3",
    "chalicelib.embedded",
    "local",
}


def modules_after(code: str) -> set[str]:
    """Return the modules that are loaded after ``code`` ran in a new process."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **IN_LAMBDA}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


SERVICE = "from chalicelib.bootstrap import service\n"
OBSERVE = (
    "import types\n"
    "with service().telemetry.observe(types.SimpleNamespace(aws_request_id='1')): pass\n"
)
"""A first event."""


@pytest.mark.parametrize("needed", ["api_keys", "delivery", "sweeper"])
def test_the_functions_beside_the_api_load_neither_it_nor_pydantic(needed: str) -> None:
    loaded = modules_after(f"import chalicelib.functions\n{SERVICE}service().{needed}\n{OBSERVE}")
    assert loaded & {"app", "pydantic", "chalicelib.rest"} == set()
    assert loaded & OFFLINE_ONLY == set()


def test_the_apis_function_loads_nothing_of_the_offline_engine() -> None:
    loaded = modules_after(f"import app\n{SERVICE}service().timers\n{OBSERVE}")
    assert loaded & OFFLINE_ONLY == set()
    assert "requests" not in loaded


def test_importing_the_api_opens_no_client() -> None:
    assert "boto3" not in modules_after("import app")
