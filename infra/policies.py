"""The IAM policies of the functions: ``python -m infra.policies`` writes them for every stage.

``policies.yaml`` is their only source. The files in ``.chalice/policies`` are committed, so that
plain ``chalice deploy`` works in a new clone. ``--check`` tells whether they are up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from infra.package import ROOT
from infra.resources import substitute

SOURCE = Path(__file__).resolve().parent / "policies.yaml"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the policies; with ``--check``, return 1 if some are not up to date."""
    parser = argparse.ArgumentParser(prog="python -m infra.policies", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name stale files")
    if not parser.parse_args(arguments).check:
        write(root)
        return 0
    stale = stale_files(root)
    if not stale:
        return 0
    names = ", ".join(str(path.relative_to(root)) for path in stale)
    print(
        f"webhook-timers: not as infra/policies.yaml says: {names}. Run: make policies",
        file=sys.stderr,
    )
    return 1


def write(root: Path = ROOT) -> None:
    """Write every policy into the checkout ``root``, and remove those of no function or stage."""
    policies = _policies(root)
    for path in stale_files(root):
        if path in policies:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(policies[path], encoding="utf-8")
        else:
            path.unlink()


def stale_files(root: Path = ROOT) -> list[Path]:
    """Return the files that ``write`` would change, make or remove."""
    policies = _policies(root)
    present = set((root / ".chalice" / "policies").glob("*/*.json"))
    outdated = {
        path
        for path, text in policies.items()
        if path not in present or path.read_text(encoding="utf-8") != text
    }
    return sorted(outdated | (present - set(policies)))


def _policies(root: Path) -> dict[Path, str]:
    """Return the text of every policy by its file: one for each function of each stage."""
    source: dict[str, Any] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    config = json.loads((root / ".chalice" / "config.json").read_text(encoding="utf-8"))
    policies = {}
    for stage in config["stages"]:
        for function, statements in source["Functions"].items():
            document = {
                "Version": "2012-10-17",
                "Statement": substitute(statements, {"Stage": stage}),
            }
            path = root / ".chalice" / "policies" / stage / f"{function}.json"
            policies[path] = json.dumps(document, indent=2) + "\n"
    return policies


if __name__ == "__main__":
    sys.exit(main())
