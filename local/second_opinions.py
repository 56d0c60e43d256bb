"""``make second-opinions``: what tools of others say of the package and of the policies.

They need packages that ours do not go with, so they have a virtual environment of their own. If it
cannot be set up, as without a network, one line says that they are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from infra.errors import DeployError
from infra.package import TEMPLATE_FILE, ZIP_FILE, package
from local.virtualenv import ROOT, SETS, SetUpError, set_up

STAGES = ("dev", "prod")
ACCEPTED = {"PERMISSIONS_MANAGEMENT_ACTIONS"}
"""Schedules need ``iam:PassRole``, for one role and one service."""

_CHECKS = Path(__file__).resolve().parent / "opinion_checks.py"


def main(prepare: Callable[[str], object] = set_up) -> int:
    """Print one line for each opinion; return 1 if one of them is bad.

    ``prepare`` makes the virtual environment of a set.
    """
    try:
        prepare("opinions")
        with tempfile.TemporaryDirectory() as folder:
            for stage in STAGES:
                package(stage, Path(folder) / stage, for_this_machine=True)
            opinions = {
                "cfn-lint on the expanded templates": _lint_templates(Path(folder)),
                "parliament on the policies": _lint_policies(),
                "the package, read-only, without HOME, on the oldest boto3": _call(Path(folder)),
            }
    except (SetUpError, DeployError) as error:
        print(f"second-opinions: skipped, because {error}")
        return 0
    for name, opinion in opinions.items():
        print(f"{name}: {opinion or 'nothing to say'}")
    return int(any(opinions.values()))


def _lint_templates(folder: Path) -> str:
    expanded = []
    for stage in STAGES:
        expanded.append(folder / f"{stage}.json")
        problem = _run("expand", str(folder / stage / TEMPLATE_FILE), str(expanded[-1]))[1]
        if problem:
            return problem
    lint = Path(sys.executable).parent / "cfn-lint"
    return subprocess.run([lint, *expanded], capture_output=True, text=True, check=False).stdout


def _lint_policies() -> str:
    policies = sorted((ROOT / ".chalice" / "policies").glob("*/*.json"))
    output, problem = _run("lint", *map(str, policies))
    if problem:
        return problem
    findings = [finding for finding in json.loads(output) if finding[1] not in ACCEPTED]
    return "\n".join(" ".join(finding) for finding in findings)


def _call(folder: Path) -> str:
    code = folder / "code"
    with zipfile.ZipFile(folder / "dev" / ZIP_FILE) as archive:
        archive.extractall(code)
    places = [code, *code.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        output, problem = _run("call", str(code), environment=_LAMBDA)
        written = [str(place) for place in code.rglob("*") if place not in set(places)]
    finally:
        for place in places:
            place.chmod(0o755)
    if problem or written:
        return problem or f"it wrote {written}"
    answer = json.loads(output.splitlines()[-1])
    print(f"  boto3 {answer['boto3']} with urllib3 {answer['urllib3']}: {answer['status']}")
    return "" if answer["status"] == HTTPStatus.OK else output


_LAMBDA = {
    "PATH": "/usr/bin:/bin",
    "AWS_LAMBDA_FUNCTION_NAME": "timers-dev",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "TIMERS_STAGE": "dev",
}


def _run(check: str, *arguments: str, environment: dict[str, str] | None = None) -> tuple[str, str]:
    """Run a check with the tools' Python; return its output, and why it failed or ""."""
    python = ROOT / SETS["opinions"].link / "bin" / "python"
    variables = {**os.environ, "AWS_DEFAULT_REGION": "eu-central-1"}
    result = subprocess.run(
        [str(python), "-B", str(_CHECKS), check, *arguments],
        env=variables if environment is None else environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout, result.stderr if result.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
