"""The server under test: ``python -m local`` on a free port and a data folder of its own."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from bench.figures import BenchError

HOST = "127.0.0.1"
PROJECT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
_POLL_S = 0.005
_KEY = re.compile(r"\bwt_[A-Za-z0-9_-]+")
_ON_DISK = Path("/var/tmp")
"""It survives a reboot, so it is on a disk. /tmp may be memory, where a sync costs nothing."""


class Server:
    """One data folder, and the server that works on it, which may be stopped and started."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self.port = free_port()
        self.data_dir = folder / "data"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the server's first process, which has started all others."""
        if self._process is None:
            raise BenchError("the server is not running")
        return self._process.pid

    def start(self, path: str = "/health") -> float:
        """Start, wait until the response to ``path`` is 200, and return the time that took (s)."""
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local"],
                cwd=PROJECT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own: Ctrl-C ends only this process, and `stop` can kill the group.
                start_new_session=True,
            )
        while not self._is_ok(path):
            if self._process.poll() is not None or time.perf_counter() - began > START_TIMEOUT_S:
                raise BenchError(f"the server did not start: {self.log_tail()}")
            time.sleep(_POLL_S)
        return time.perf_counter() - began

    def stop(self) -> float:
        """End the server with SIGTERM, or with SIGKILL in the end; return how long it took (s)."""
        if self._process is None:
            return 0.0
        began = time.perf_counter()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None
        return time.perf_counter() - began

    def issue_key(self, tenant: str) -> str:
        """Return a new API key of ``tenant``."""
        command = [sys.executable, "-m", "local.keys", "issue", tenant]
        printed = subprocess.run(
            command,
            cwd=PROJECT,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        key = _KEY.search(printed)
        if key is None:
            raise BenchError(f"no key was issued: {printed[:200]}")
        return key[0]

    def _environment(self) -> dict[str, str]:
        # Another address in HOST would make the requests of the benchmarks fail.
        environment = {name: value for name, value in os.environ.items() if name != "HOST"}
        environment |= {"PORT": str(self.port), "DATA_DIR": str(self.data_dir)}
        return {**environment, **self._settings}

    def log_tail(self) -> str:
        """Return the end of the server's output."""
        return self._log.read_text(errors="replace")[-500:].strip()

    def _is_ok(self, path: str) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Server]:
    """Yield a server on an empty data folder; stop it and remove the folder at the end."""
    parent = _ON_DISK if os.access(_ON_DISK, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="timers-bench-", dir=parent))
    server = Server(folder, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port on which no process listens now."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
