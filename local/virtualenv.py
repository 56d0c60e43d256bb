"""Virtual environments: makes one for a set of requirements files, and points a link at it.

``local/virtualenv.sh`` runs this before any package is installed, so it imports nothing but the
standard library. Each environment is a folder in ``.venvs/`` with a name of its own. ``.venv`` is a
link to the current one and changes only when the next one is complete: a set-up that fails changes
nothing, and a server keeps the packages it started with.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ".venvs"

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")
"""The versions of Python that the project runs on. CI tests each of them."""

_MADE_FROM = "made-from"
_PLACE = "place"
_USERS = "users"

Command = list[str]
Run = Callable[[Command], None]
"""Runs a command to its end. Raises ``OSError`` or ``subprocess.CalledProcessError``."""
Say = Callable[[str], None]


class SetUpError(Exception):
    """The environment could not be made. What was there before is unchanged."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """Requirements files, the last of which includes the others, and the link to what they make."""

    files: tuple[str, ...]
    link: str = ".venv"


_RUN_FILES = ("constraints.txt", "requirements.txt", "requirements-run.txt")

SETS = {
    "run": Requirements(_RUN_FILES),
    "dev": Requirements((*_RUN_FILES, "requirements-dev.txt")),
    "emulator": Requirements(("local/emulator-requirements.txt",), ".venv-emulator"),
    "opinions": Requirements(("local/opinions-requirements.txt",), ".venv-opinions"),
}


@dataclass(frozen=True, slots=True)
class Installer:
    """A program that fills an environment, and about how many seconds it takes for each set."""

    name: str
    seconds: dict[str, int]
    commands: Callable[[Path, str], tuple[Command, ...]]
    """From a new folder and a requirements file to the commands that do it."""


def _pip_commands(folder: Path, requirements: str) -> tuple[Command, ...]:
    # -I shuts out PYTHONPATH, PYTHONHOME and the user's own packages; --no-user a PIP_USER=1, with
    # which pip refuses to work here. -qq hides pip's warnings and shows its errors.
    quiet = ["-qq", "--disable-pip-version-check", "--no-user"]
    return (
        [sys.executable, "-I", "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", *quiet, "-r", requirements],
    )


def _uv_commands(folder: Path, requirements: str) -> tuple[Command, ...]:
    python = str(folder / "bin" / "python")
    return (
        ["uv", "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
        ["uv", "pip", "install", "--quiet", "--python", python, "-r", requirements],
    )


PIP = Installer("pip", {"run": 20, "dev": 60, "emulator": 15, "opinions": 15}, _pip_commands)
UV = Installer("uv", {"run": 5, "dev": 15, "emulator": 5, "opinions": 5}, _uv_commands)


def installers() -> list[Installer]:
    """Return the installers that this machine has, the fastest first.

    pip follows uv because pip may have settings that uv does not read, such as a mirror.
    """
    found = [UV] if shutil.which("uv") else []
    if importlib.util.find_spec("ensurepip") is not None:
        found.append(PIP)
    return found


def say(line: str) -> None:
    """Print a line for the person who waits."""
    print(line, file=sys.stderr, flush=True)


def run_command(command: Command) -> None:
    """Run a command; what it prints goes to stderr, because stdout belongs to what runs next."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def is_current(folder: Path, requirements: Requirements, root: Path = ROOT) -> bool:
    """Return whether ``folder`` was made, completely, from the files as they are now.

    Scripts in an environment contain its absolute path, so one that was moved is not current.
    """
    made_from = folder.resolve() / _MADE_FROM
    try:
        return (
            os.access(folder / "bin" / "python", os.X_OK)
            and (made_from / _PLACE).read_text() == f"{folder.resolve()}\n"
            and all(
                (root / file).read_bytes() == (made_from / Path(file).name).read_bytes()
                for file in requirements.files
            )
        )
    except OSError:
        return False


def set_up(
    name: str,
    *,
    root: Path = ROOT,
    choices: Sequence[Installer] | None = None,
    run: Run = run_command,
    say: Say = say,
) -> Path:
    """Return the folder of an environment that holds the set ``name``; make it if there is none.

    Waits while another process does the same. Raises ``SetUpError``.
    """
    requirements = SETS[name]
    link = root / requirements.link
    folders = root / FOLDERS
    if is_current(link, requirements, root):
        return link.resolve()
    try:
        folders.mkdir(exist_ok=True)
        with _lock(folders / "lock", say):
            # Whoever held the lock before may have made just this one.
            if not is_current(link, requirements, root):
                made = _make(name, root, installers() if choices is None else choices, run, say)
                _switch(link, made)
                _remove_unused(root)
    except OSError as error:
        raise SetUpError(f"{requirements.link} cannot be set up: {error}") from error
    return link.resolve()


def mark_in_use(folder: Path) -> None:
    """Keep ``folder`` from being removed while this process, or what replaces it, is alive."""
    users = folder / _USERS
    if os.access(users, os.W_OK):  # whoever may not write here cannot remove it either
        (users / str(os.getpid())).touch()


@contextlib.contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:  # the system releases the lock with the file, even after kill -9
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(name: str, root: Path, choices: Sequence[Installer], run: Run, say: Say) -> Path:
    for installer in choices:
        python = ".".join(map(str, sys.version_info[:2]))
        say(
            f"Setting up {SETS[name].link} with Python {python} and {installer.name} "
            f"(once, about {installer.seconds[name]} s)"
        )
        start = time.monotonic()
        # A new name each time: pip may outlive a set-up that was killed, and go on writing.
        folder = root.resolve() / FOLDERS / f"{name}-{secrets.token_hex(4)}"
        try:
            _fill(folder, SETS[name], installer, root, run)
        except subprocess.CalledProcessError:
            shutil.rmtree(folder, ignore_errors=True)
            say(f"{installer.name} failed: see above")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        else:
            taken = time.monotonic() - start
            say(f"{SETS[name].link} is ready: {_count(folder)} packages in {taken:.0f} s")
            return folder
    raise SetUpError(
        f"{SETS[name].link} could not be set up and is as it was. A set-up needs the network, and "
        "room on the disk; the next one starts afresh"
    )


def _fill(
    folder: Path, requirements: Requirements, installer: Installer, root: Path, run: Run
) -> None:
    # Copies first: files that change during the installation are then not taken for installed.
    copies = folder / "copies"
    texts = {Path(file).name: (root / file).read_bytes() for file in requirements.files}
    for command in installer.commands(folder, str(root / requirements.files[-1])):
        run(command)
    copies.mkdir()
    for file, text in texts.items():
        (copies / file).write_bytes(text)
    (copies / _PLACE).write_text(f"{folder}\n")
    (folder / _USERS).mkdir()
    copies.rename(folder / _MADE_FROM)  # last: only a complete environment has this name


def _count(folder: Path) -> int:
    return len(list(folder.glob("lib/python*/site-packages/*.dist-info")))


def _switch(link: Path, folder: Path) -> None:
    """Point ``link`` at ``folder``, at once: no process ever finds no environment."""
    new = folder.parent / "next"
    new.unlink(missing_ok=True)
    new.symlink_to(Path(FOLDERS) / folder.name)
    if link.is_dir() and not link.is_symlink():
        # Earlier versions made a folder here, which no link can replace in one step.
        link.rename(folder.parent / f"earlier-{os.getpid()}")
    new.replace(link)


def _remove_unused(root: Path) -> None:
    current = {(root / requirements.link).resolve() for requirements in SETS.values()}
    for folder in (root.resolve() / FOLDERS).iterdir():
        if folder.is_dir() and folder not in current and not _is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(folder: Path) -> bool:
    users = folder / _USERS
    return users.is_dir() and any(_is_alive(int(user.name)) for user in users.iterdir())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def main() -> int:
    """Set up the set that the command line names."""
    try:
        set_up(sys.argv[1])
    except SetUpError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the next set-up starts afresh")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
