"""MiniStack, the emulator of AWS: its installation and its process.

It has a virtual environment of its own, because it pins other versions of libraries than the
service ships.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from chalicelib.domain.errors import StartupError
from local.virtualenv import ROOT, SETS, SetUpError, mark_in_use, set_up

HOST = "127.0.0.1"

START_S = 20.0
"""How long the emulator may take to accept its first connection."""

COMMAND = ROOT / SETS["emulator"].link / "bin" / "ministack"


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
    try:
        mark_in_use(set_up("emulator"))
    except (OSError, SetUpError) as error:
        raise StartupError(f"the emulator cannot be installed: {error}") from error


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
