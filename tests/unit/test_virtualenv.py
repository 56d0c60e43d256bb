"""The set-up of virtual environments: one at a time, complete or not at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from local.virtualenv import (
    FOLDERS,
    ROOT,
    SETS,
    SUPPORTED,
    Command,
    Installer,
    SetUpError,
    is_current,
    mark_in_use,
    set_up,
)
from tests.support.waiting import eventually

FAKE = Installer(
    "fake", dict.fromkeys(SETS, 1), lambda folder, file: (["make", str(folder)], ["install", file])
)
OTHER = Installer("other", FAKE.seconds, FAKE.commands)
NEVER_A_PROCESS = "999999999"


class Machine:
    """A project folder, and a ``run`` that makes environments without installing anything."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self.ran: list[Command] = []
        for file in SETS["dev"].files:
            (root / file).write_text(f"{file} 1\n")

    def run(self, command: Command) -> None:
        self.ran.append(command)
        if command[0] == "make":
            python = Path(command[1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)

    def set_up(self, name: str, run: Callable[[Command], None] | None = None) -> Path:
        return set_up(
            name, root=self.root, choices=[FAKE], run=run or self.run, say=self.said.append
        )

    def change(self, file: str) -> None:
        with (self.root / file).open("a") as requirements:
            requirements.write("changed\n")

    def holds(self, name: str) -> bool:
        return is_current(self.root / SETS[name].link, SETS[name], self.root)

    @property
    def folders(self) -> set[Path]:
        return {path for path in (self.root / FOLDERS).iterdir() if path.is_dir()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root = tmp_path.resolve() / "project"
    root.mkdir()
    return Machine(root)


def test_a_set_up_is_done_once(machine: Machine) -> None:
    folder = machine.set_up("run")
    assert (machine.root / ".venv").resolve() == folder
    assert machine.holds("run")
    ran = len(machine.ran)
    assert machine.set_up("run") == folder
    assert len(machine.ran) == ran


def test_it_says_what_it_does_and_how_long_it_took(machine: Machine) -> None:
    machine.set_up("run")
    first, last = machine.said
    assert re.fullmatch(r"Setting up \.venv with Python 3\.\d+ and fake \(once, about 1 s\)", first)
    assert last == ".venv is ready: 0 packages in 0 s"


def test_the_development_environment_serves_the_run_set_too(machine: Machine) -> None:
    run = machine.set_up("run")
    assert not machine.holds("dev")
    dev = machine.set_up("dev")
    assert machine.set_up("run") == dev
    assert machine.folders == {dev}
    assert not run.exists()


def test_a_changed_tool_leaves_the_run_set_as_it_is(machine: Machine) -> None:
    folder = machine.set_up("dev")
    machine.change("requirements-dev.txt")
    assert machine.set_up("run") == folder
    assert machine.set_up("dev") != folder


def test_an_environment_in_use_stays_until_its_process_has_ended(machine: Machine) -> None:
    used = machine.set_up("run")
    mark_in_use(used)
    machine.change("requirements.txt")
    machine.set_up("run")
    assert (used / "bin" / "python").exists()
    (used / "users" / str(os.getpid())).rename(used / "users" / NEVER_A_PROCESS)
    machine.change("requirements.txt")
    current = machine.set_up("run")
    assert machine.folders == {current}


def test_the_emulator_has_an_environment_of_its_own(machine: Machine) -> None:
    requirements = machine.root / SETS["emulator"].files[0]
    requirements.parent.mkdir()
    requirements.touch()
    run, emulator = machine.set_up("run"), machine.set_up("emulator")
    machine.change("requirements.txt")
    changed = machine.set_up("run")
    assert machine.folders == {changed, emulator}
    assert not run.exists()
    assert machine.holds("emulator")


@pytest.mark.parametrize(
    "failure", [subprocess.CalledProcessError(1, "pip"), OSError("disk full"), KeyboardInterrupt()]
)
def test_a_failed_set_up_leaves_the_old_environment_and_the_next_one_repairs(
    machine: Machine, failure: BaseException
) -> None:
    def fail(command: Command) -> None:
        machine.run(command)
        if command[0] == "install":
            raise failure

    old = machine.set_up("run")
    with pytest.raises((SetUpError, KeyboardInterrupt)):
        machine.set_up("dev", fail)
    assert machine.folders == {old}
    assert machine.holds("run")
    dev = machine.set_up("dev")
    assert machine.folders == {dev}


def test_the_remains_of_a_killed_set_up_are_removed(machine: Machine) -> None:
    remains = machine.root / FOLDERS / "run-half"
    (remains / "bin").mkdir(parents=True)
    assert machine.folders == {remains}
    run = machine.set_up("run")
    assert machine.folders == {run}


def test_requirements_that_change_during_the_set_up_are_installed_by_the_next(
    machine: Machine,
) -> None:
    def change(command: Command) -> None:
        machine.run(command)
        if command[0] == "install":
            machine.change("requirements.txt")

    machine.set_up("run", change)
    assert not machine.holds("run")


def test_the_next_installer_is_tried_if_one_fails(machine: Machine) -> None:
    def fail_once(command: Command) -> None:
        machine.run(command)
        if command[0] == "install" and len(machine.ran) == len(FAKE.commands(Path(), "")):
            raise subprocess.CalledProcessError(1, command)

    set_up(
        "run",
        root=machine.root,
        choices=[FAKE, OTHER],
        run=fail_once,
        say=machine.said.append,
    )
    assert machine.holds("run")
    assert "fake failed: see above" in machine.said


def test_a_folder_of_an_earlier_version_is_replaced(machine: Machine) -> None:
    old = machine.root / ".venv"
    (old / "bin").mkdir(parents=True)
    (old / ".requirements").write_text("1 2\n")
    folder = machine.set_up("run")
    assert old.is_symlink()
    assert machine.folders == {folder}


def test_what_a_link_to_elsewhere_leads_to_is_not_touched(machine: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared"
    (elsewhere / "bin").mkdir(parents=True)
    (machine.root / ".venv").symlink_to(elsewhere)
    machine.set_up("run")
    assert (elsewhere / "bin").is_dir()
    assert machine.holds("run")


def test_an_environment_that_was_moved_is_made_again(machine: Machine) -> None:
    machine.set_up("run")
    moved = machine.root.with_name("moved")
    machine.root.rename(moved)
    assert not is_current(moved / ".venv", SETS["run"], moved)


def test_the_second_of_two_at_once_waits_and_takes_what_the_first_made(machine: Machine) -> None:
    started, finish = threading.Event(), threading.Event()

    def slowly(command: Command) -> None:
        machine.run(command)
        started.set()
        finish.wait(10)

    first = threading.Thread(target=machine.set_up, args=("run", slowly))
    first.start()
    assert started.wait(10)
    made: list[Path] = []
    second = threading.Thread(target=lambda: made.append(machine.set_up("run")))
    second.start()
    assert eventually(lambda: "Another set-up is running; waiting for it" in machine.said)
    assert not made
    finish.set()
    first.join(10)
    second.join(10)
    assert machine.folders == set(made)
    assert len(machine.ran) == len(FAKE.commands(Path(), ""))


def test_a_killed_set_up_does_not_keep_the_lock(machine: Machine) -> None:
    (machine.root / FOLDERS).mkdir()
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); "
        "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(machine.root / FOLDERS / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = threading.Thread(target=machine.set_up, args=("run",))
        waiting.start()
        assert eventually(lambda: machine.said != [])
        assert not machine.holds("run")
        holder.kill()
        waiting.join(10)
    assert machine.holds("run")


# The script, which decides without Python whether there is anything to set up.


@pytest.fixture
def script(machine: Machine) -> Callable[..., subprocess.CompletedProcess[str]]:
    (machine.root / "local").mkdir()
    for file in ("virtualenv.sh", "virtualenv.py", "__init__.py"):
        shutil.copy(ROOT / "local" / file, machine.root / "local")

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [machine.root / "local" / "virtualenv.sh", *arguments],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


SHOW = ("python", "-c", "import os, sys; print(os.getpid(), sys.executable)")


def test_the_script_makes_an_environment_and_runs_the_command_in_it(
    machine: Machine, script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for file in SETS["dev"].files:
        (machine.root / file).write_text("# nothing to install\n")
    first = script("run", *SHOW, SETUP_PYTHON=sys.executable)
    assert "Setting up .venv" in first.stderr
    assert first.returncode == 0
    assert machine.holds("run")
    again = script("run", *SHOW, SETUP_PYTHON="/nowhere/python")
    assert again.stderr == ""
    process, executable = again.stdout.split()
    folder = (machine.root / ".venv").resolve()
    assert executable == str(folder / "bin" / "python")
    assert [user.name for user in (folder / "users").iterdir()] == [process]


@pytest.mark.parametrize("name", ["run", "dev"])
@pytest.mark.parametrize("change", [None, *SETS["dev"].files, "place", "python"])
def test_the_script_and_the_module_agree_on_what_is_current(
    machine: Machine,
    script: Callable[..., subprocess.CompletedProcess[str]],
    name: str,
    change: str | None,
) -> None:
    folder = machine.set_up("dev")
    if change == "place":
        (folder / "made-from" / "place").write_text("/elsewhere\n")
    elif change == "python":
        (folder / "bin" / "python").unlink()
    elif change is not None:
        machine.change(change)
    ran = script(name, *SHOW, SETUP_PYTHON="/nowhere/python").returncode == 0
    assert ran == machine.holds(name)


def test_the_script_says_in_one_line_that_it_found_no_python(
    script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = script("run", *SHOW, SETUP_PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.10 to 3.14 with venv is needed: brew install")
    assert done.stderr.count("\n") == 1


def test_the_script_passes_the_exit_code_of_the_command_on(
    machine: Machine, script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    machine.set_up("run")
    assert script("run", "python", "-c", "raise SystemExit(7)").returncode == 7


# Facts that several files state.


def test_every_place_names_the_same_versions_of_python() -> None:
    newest_first = " ".join(f"python{version}" for version in reversed(SUPPORTED))
    assert f":-{newest_first} python3}}" in (ROOT / "local" / "virtualenv.sh").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    matrix = workflow["jobs"]["ci"]["strategy"]["matrix"]
    assert matrix["python"] == list(SUPPORTED)
    assert [(row["os"], row["python"]) for row in matrix["include"]] == [
        ("macos-latest", SUPPORTED[0]),
        ("macos-latest", SUPPORTED[-1]),
    ]


@pytest.mark.parametrize("file", sorted({file for made in SETS.values() for file in made.files}))
def test_every_requirement_is_pinned_and_says_why_it_is_there(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith(("#", "-r ", "-c "))]
    assert requirements
    if file == "constraints.txt":  # its libraries are there for those of requirements.txt
        requirements = [f"{line}  # locked" for line in requirements]
    for line in requirements:
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==[\w.]+( *;[^#]*)? +# \S", line), line


def test_each_set_includes_the_one_before() -> None:
    for before, file in zip(SETS["dev"].files, SETS["dev"].files[1:], strict=False):
        option = "-c" if before == "constraints.txt" else "-r"
        assert f"{option} {before}" in (ROOT / file).read_text().splitlines()


def test_the_lambdas_ship_neither_chalice_nor_boto3() -> None:
    shipped = (ROOT / "requirements.txt").read_text()
    assert not re.search(r"^(chalice|boto3)\b", shipped, re.MULTILINE)
