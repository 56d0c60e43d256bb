"""What a Lambda loads before its first event: every module costs a cold start."""

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
OFFLINE_ONLY = {"aiohttp", "granian", "uvloop", "sqlite3", "chalicelib.embedded", "local"}


def modules_after(code: str) -> set[str]:
    """Return what is loaded after ``code`` ran in a new process, as in a Lambda."""
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


@pytest.mark.parametrize("needed", ["callers", "delivery", "sweeper"])
def test_the_functions_beside_the_api_load_neither_it_nor_pydantic(needed: str) -> None:
    loaded = modules_after(
        "import chalicelib.functions\n"
        "from chalicelib import wiring\n"
        f"wiring.{needed}()\n"
        "wiring.meter()\n"
    )
    assert loaded & {"app", "pydantic", "chalicelib.rest"} == set()
    assert loaded & OFFLINE_ONLY == set()


def test_the_apis_function_loads_nothing_of_the_offline_engine() -> None:
    loaded = modules_after("import app\nfrom chalicelib import wiring\nwiring.scheduling()\n")
    assert loaded & OFFLINE_ONLY == set()
    assert "requests" not in loaded


def test_importing_the_api_opens_no_client() -> None:
    assert "boto3" not in modules_after("import app")
