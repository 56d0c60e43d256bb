"""MiniStack, the emulator of AWS: its installation and its process.

It has a virtual environment of its own, because it pins other versions of libraries than the
service ships.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from chalicelib.domain.errors import StartupError

HOST = "127.0.0.1"

START_S = 20.0
"""How long the emulator may take to accept its first connection."""

_PROJECT = Path(__file__).resolve().parent.parent.parent
_REQUIREMENTS = _PROJECT / "local" / "emulator-requirements.txt"
_ENVIRONMENT = _PROJECT / ".venv-emulator"
_STAMP = _ENVIRONMENT / ".requirements"
_LOCK = _PROJECT / ".venv-emulator.lock"

COMMAND = _ENVIRONMENT / "bin" / "ministack"


class Emulator:
    """An emulator that a program starts and stops for its own use. Its data stays in ``folder``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://{HOST}:{port}"
        self._port = port
        self._environment = process_environment(port, folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Install and start the emulator, and wait until it accepts connections.

        Raises ``StartupError``.
        """
        install()
        self._process = subprocess.Popen(
            [COMMAND], env=self._environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        deadline = time.monotonic() + START_S
        while not self._accepts_connections():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StartupError(f"the emulator does not answer on {self.address}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the emulator and wait for its end; its data stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _accepts_connections(self) -> bool:
        try:
            socket.create_connection((HOST, self._port), timeout=1).close()
        except OSError:
            return False
        return True


def install() -> None:
    """Make the emulator's virtual environment unless it is up to date. Raises ``StartupError``."""
    requirements = _REQUIREMENTS.read_text()
    if _is_installed(requirements):
        return
    try:
        with _LOCK.open("w") as lock:
            # Two installations at once would delete each other's files. The second one waits, and
            # then has nothing to do.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_installed(requirements):
                _make_environment(requirements)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StartupError(f"the emulator cannot be installed: {error}") from error


def _is_installed(requirements: str) -> bool:
    return COMMAND.exists() and _STAMP.exists() and _STAMP.read_text() == requirements


def _make_environment(requirements: str) -> None:
    print("Setting up .venv-emulator (once)", file=sys.stderr, flush=True)
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    pip = [str(_ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
    subprocess.run(
        [*pip, "--disable-pip-version-check", "-r", _REQUIREMENTS],
        check=True,
        stdout=sys.stderr,
    )
    # Written last: an installation that was interrupted is made again.
    _STAMP.write_text(requirements)


def process_environment(port: int, folder: Path) -> dict[str, str]:
    """Return the environment variables that make the emulator serve ``port`` from ``folder``."""
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    # The emulator passes its environment on to the functions it runs, which must call only the
    # emulator: this shell's AWS settings would point them elsewhere.
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    return inherited | {
        "BIND_HOST": HOST,  # by default it would listen on every network
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "s3"),
        "TMPDIR": str(temporary),
    }
