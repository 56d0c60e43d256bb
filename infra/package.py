"""The package of one stage, made by Chalice: the zip with the code and the template for it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from chalicelib.settings import OPEN
from infra.errors import DeployError

ROOT = Path(__file__).resolve().parent.parent
MERGE_TEMPLATE = ROOT / "infra" / "package.json"

TEMPLATE_FILE = "sam.json"
ZIP_FILE = "deployment.zip"
ANY_METHOD = "x-amazon-apigateway-any-method"

# Every library is pinned (constraints.txt), so a line has exactly this form.
_REQUIREMENT = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)
_PACKED = re.compile(r"^([^/]+)-([^/-]+)\.dist-info/METADATA$")

_ANY_REGION = "us-east-1"
"""``chalice package`` needs a region, although its template is the same for every region."""

LOCK_FILE = "constraints.txt"

_SOURCES = (
    "app.py",
    "chalicelib",
    LOCK_FILE,
    "requirements.txt",
    ".chalice/config.json",
    ".chalice/policies",
)


def require_stage(stage: str, root: Path = ROOT) -> None:
    """Raise ``DeployError`` unless Chalice's configuration has ``stage``."""
    config = json.loads((root / ".chalice" / "config.json").read_text(encoding="utf-8"))
    if stage not in config["stages"]:
        raise DeployError(
            f"There is no stage {stage!r} in .chalice/config.json: "
            f"STAGE is one of {', '.join(sorted(config['stages']))}."
        )


def is_open(stage: str, root: Path = ROOT) -> bool:
    """Tell whether a stage accepts requests without a key, by its configuration."""
    config = json.loads((root / ".chalice" / "config.json").read_text(encoding="utf-8"))
    variables: dict[str, str] = {
        **config.get("environment_variables", {}),
        **config["stages"][stage].get("environment_variables", {}),
    }
    return variables.get("TIMERS_AUTH") == OPEN


def package(stage: str, out: Path, root: Path = ROOT, *, for_this_machine: bool = False) -> None:
    """Write ``sam.json`` and ``deployment.zip`` of one stage to the folder ``out``.

    ``for_this_machine`` packs libraries for this machine's processor, on which an emulator runs the
    Lambdas. Raises ``DeployError``.
    """
    require_stage(stage, root)
    with tempfile.TemporaryDirectory() as folder:
        # A clean copy: only the sources get into the zip, and pip resolves the libraries again.
        # In the checkout, Chalice would use libraries that an earlier run has left.
        copy = Path(folder)
        for source in _SOURCES:
            _copy(root / source, copy / source)
        if for_this_machine:
            _set_architecture(copy / ".chalice" / "config.json", _architecture())
        merge = copy / "merge.json"
        merge.write_text(json.dumps(_merge_template(stage)), encoding="utf-8")
        made = copy / "out"
        run_chalice(
            ["package", "--stage", stage, "--merge-template", str(merge), str(made)],
            _ANY_REGION,
            copy,
        )
        require_locked(root / LOCK_FILE, made / ZIP_FILE)
        template = json.loads((made / TEMPLATE_FILE).read_text(encoding="utf-8"))
        _accept_any_method(template)
        out.mkdir(parents=True, exist_ok=True)
        (out / TEMPLATE_FILE).write_text(json.dumps(template, indent=2), encoding="utf-8")
        shutil.copyfile(made / ZIP_FILE, out / ZIP_FILE)


def run_chalice(arguments: list[str], region: str, folder: Path = ROOT) -> None:
    """Run a command of Chalice on the project in ``folder``. Raises ``DeployError``.

    The ``TIMERS_…`` variables of this shell are removed, because they configure the offline server.
    In a stage, TIMERS_AUTH=none would give everybody access.
    """
    chalice = Path(sys.executable).parent / "chalice"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TIMERS_")
    }
    # Without PYTHONDONTWRITEBYTECODE, compiled files of this machine would make the package larger.
    environment |= {"AWS_DEFAULT_REGION": region, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        subprocess.run([str(chalice), *arguments], cwd=folder, env=environment, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeployError(f"`chalice {arguments[0]}` failed: see the lines above.") from error


def _merge_template(stage: str) -> dict[str, Any]:
    """Return the merge template for one stage. The package cannot be deployed to another one."""
    merge: dict[str, Any] = json.loads(MERGE_TEMPLATE.read_text(encoding="utf-8"))
    merge["Parameters"]["Stage"] |= {"Default": stage, "AllowedValues": [stage]}
    return merge


def _accept_any_method(template: dict[str, Any]) -> None:
    """Pass unknown methods of every path to the API, which responds with 405 and ``Allow``.

    API Gateway itself would respond as if there were no such path. These methods need no key,
    because the response reveals nothing. HEAD is one of them: the API answers it like GET on the
    public routes, and with 401 on the others.
    """
    paths = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]["paths"]
    for operations in paths.values():
        # Any operation of the path will do: all of them invoke the same function.
        named = next(iter(operations.values()))
        kept = {
            key: value for key, value in named.items() if key not in ("security", "description")
        }
        operations[ANY_METHOD] = kept | {
            "consumes": ["*/*"],
            "summary": "Any other method: 405, with Allow.",
        }


def locked_libraries(lock: Path) -> set[tuple[str, str]]:
    """Return the name, normalised, and the version of each library of ``constraints.txt``."""
    text = lock.read_text(encoding="utf-8")
    return {(_normalised(name), version) for name, version in _REQUIREMENT.findall(text)}


def packed_libraries(code: Path) -> set[tuple[str, str]]:
    """Return the libraries in a package: the name of each, normalised, and its version."""
    with zipfile.ZipFile(code) as archive:
        # Each library has a folder like `typing_extensions-4.15.0.dist-info`.
        found = [_PACKED.match(name) for name in archive.namelist()]
    return {(_normalised(match[1]), match[2]) for match in found if match}


def require_locked(lock: Path, code: Path) -> None:
    """Raise ``DeployError`` unless the zip has exactly the libraries of ``constraints.txt``.

    Chalice only warns of a library that it cannot get, and packs the rest.
    """
    locked, packed = locked_libraries(lock), packed_libraries(code)
    missing, foreign = (
        ", ".join(" ".join(library) for library in sorted(difference))
        for difference in (locked - packed, packed - locked)
    )
    if missing:
        raise DeployError(f"The package lacks {missing}: can pip reach its index?")
    if foreign:
        raise DeployError(f"The package has {foreign}, which {lock.name} lacks: run make lock")


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _architecture() -> str:
    """Return Lambda's name for this machine's processor."""
    return "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


def _set_architecture(file: Path, architecture: str) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    config["lambda_architecture"] = architecture
    file.write_text(json.dumps(config), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)
