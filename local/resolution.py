"""``make resolve``: every requirements file has a solution on every supported Python.

A pin that needs a newer Python than the oldest supported one breaks the set-up there, and nobody
who develops on a newer one sees it. uv finds the solutions for a Python that is not installed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local.virtualenv import ROOT, SETS, SUPPORTED

PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-apple-darwin")
FILES = tuple(dict.fromkeys(file for requirements in SETS.values() for file in requirements.files))

_UV = Path(sys.executable).parent / "uv"
_AT_ONCE = 4

LOCK = "constraints.txt"
_LOCK_HEAD = """\
# Every library that the Lambdas ship, with its version: what is packed is what was tested.
# Written by `make lock` from requirements.txt, which names this file.
"""


def main() -> int:
    """Print what cannot be resolved, and return 1 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m local.resolution", description=__doc__)
    parser.add_argument(
        "--if-online", action="store_true", help="skip if the package index does not answer"
    )
    parser.add_argument("--lock", action="store_true", help="only write constraints.txt anew")
    chosen = parser.parse_args()
    if chosen.lock:
        return write_lock()
    if chosen.if_online and not is_online():
        print("resolve: skipped, because the package index does not answer")
        return 0
    start = time.monotonic()
    cases = list(itertools.product(FILES, SUPPORTED, PLATFORMS))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        problems = [problem for problem in pool.map(problem_of, cases) if problem]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(
        f"resolve: {len(cases) - len(problems)} of {len(cases)} combinations of file, Python and "
        f"platform have a solution ({time.monotonic() - start:.0f} s)"
    )
    return 1 if problems else 0


def problem_of(case: tuple[str, str, str]) -> str:
    """Return why a file has no solution for a Python on a platform; "" if it has one.

    Only wheels count: a user's machine may have no compiler.
    """
    file, python, platform = case
    result = _compile(str(ROOT / file), "--python-version", python, "--python-platform", platform)
    if result.returncode == 0:
        return ""
    return f"{file}, Python {python}, {platform}:\n{result.stderr}"


def write_lock(root: Path = ROOT) -> int:
    """Write the newest versions that ``requirements.txt`` allows to ``constraints.txt``.

    One version of each library must do for every supported Python. Return 1 if there is none.
    """
    libraries = (root / "requirements.txt").read_text(encoding="utf-8").replace(f"-c {LOCK}\n", "")
    result = _compile(
        "-", "--universal", "--no-annotate", "--python-version", SUPPORTED[0], text=libraries
    )
    if result.returncode == 0:
        (root / LOCK).write_text(_LOCK_HEAD + result.stdout, encoding="utf-8")
    print(result.stderr, end="", file=sys.stderr)
    return result.returncode


def is_online() -> bool:
    """Return whether the package index responds. It is asked once, for one small package."""
    impatient = {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
    return _compile("-", "--no-deps", "--refresh", text="idna\n", extra=impatient).returncode == 0


def _compile(
    *arguments: str, text: str = "", extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    options = ["--quiet", "--no-header", "--only-binary", ":all:", "--python", sys.executable]
    return subprocess.run(
        [str(_UV), "pip", "compile", *options, *arguments],
        input=text,
        env={**os.environ, **(extra or {})},
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
