"""An emulator of AWS for this machine. ``python -m local.emulator`` runs it until Ctrl-C.

It is installed into an environment of its own: it pins libraries to other versions than the
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
from typing import NoReturn

from chalicelib.domain.errors import StartupError

HOST = "127.0.0.1"
DEFAULT_PORT = "4566"
DEFAULT_FOLDER = "~/.local/share/webhook-timers/emulator"

_PROJECT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _PROJECT / "local" / "emulator-requirements.txt"
_ENVIRONMENT = _PROJECT / ".venv-emulator"
_STAMP = _ENVIRONMENT / ".requirements"
_LOCK = _PROJECT / ".venv-emulator.lock"
START_S = 20.0
COMMAND = _ENVIRONMENT / "bin" / "ministack"


def main() -> NoReturn:
    """Install the emulator where that is still to do, and become it."""
    port = os.environ.get("EMULATOR_PORT") or DEFAULT_PORT
    folder = Path(os.environ.get("EMULATOR_DIR") or DEFAULT_FOLDER).expanduser()
    try:
        install()
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        sys.exit(os.EX_UNAVAILABLE)
    print(
        f"An emulator of AWS on http://{HOST}:{port}; Ctrl-C ends it and keeps what it holds in "
        f"{folder}\nIn another terminal:\n"
        f"  AWS_ENDPOINT_URL=http://{HOST}:{port} make run ENGINE=aws",
        flush=True,
    )
    os.execve(COMMAND, [str(COMMAND)], environment(int(port), folder))  # noqa: S606


def install() -> None:
    """Make the emulator's environment, unless it is there. Raises ``StartupError``."""
    wanted = _REQUIREMENTS.read_text()
    if _has(wanted):
        return
    try:
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would delete what the other makes
            if not _has(wanted):
                _make(wanted)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StartupError(f"the emulator cannot be installed: {error}") from error


def _has(wanted: str) -> bool:
    return COMMAND.exists() and _STAMP.exists() and _STAMP.read_text() == wanted


def _make(wanted: str) -> None:
    print("Setting up .venv-emulator (once)", file=sys.stderr, flush=True)
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    pip = [str(_ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
    subprocess.run(
        [*pip, "--disable-pip-version-check", "-r", _REQUIREMENTS],
        check=True,
        stdout=sys.stderr,
    )
    _STAMP.write_text(wanted)


class Emulator:
    """An emulator that a program runs for itself, on what ``folder`` holds."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://{HOST}:{port}"
        self._port = port
        self._environment = environment(port, folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once the emulator answers. Raises ``StartupError``."""
        install()
        self._process = subprocess.Popen(
            [COMMAND], env=self._environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StartupError(f"the emulator does not answer on {self.address}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the emulator, which keeps what it holds."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self._port), timeout=1).close()
        except OSError:
            return False
        return True


def environment(port: int, folder: Path) -> dict[str, str]:
    """Return the environment in which the emulator serves ``port`` from ``folder``."""
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    # It hands this on to the functions it runs, and they speak to nobody but itself.
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    return inherited | {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "s3"),
        "TMPDIR": str(temporary),
    }


if __name__ == "__main__":
    main()
