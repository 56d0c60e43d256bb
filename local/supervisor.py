"""The supervisor of the offline server: starts the API and what fires, and keeps them up.

What fires is the dispatcher of the embedded engine, or the pump of the aws engine on an emulator.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from chalicelib.domain.errors import StartupError
from chalicelib.embedded.folder import DataFolder
from chalicelib.settings import AWS, Settings, load
from chalicelib.wiring import use_emulator
from local.address import reachable, url

START_S = 15.0
STOP_API_S = 4.0
STOP_STARTING_S = 0.5
"""An API that never answered has nothing to finish, and its workers may not hear the signal yet."""

STOP_FIRING_S = 8.0
ASK_AGAIN_S = 1.0
PORT_WAIT_S = 3.0
"""The children of a killed server keep its port for up to a second."""

_POLL_S = 0.05
_RESTART_S = 0.5


class PortTaken(StartupError):
    """Another program listens where this server should."""

    code = "port-taken"


@dataclass
class Child:
    """One process that is started again when it dies."""

    module: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = field(default=0.0)

    def start(self) -> None:
        """Start the process, which is told its parent."""
        self.started_at = time.monotonic()
        command = [sys.executable, "-m", self.module, str(os.getpid())]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def exit_code(self) -> int | None:
        """Return how the process ended; None while it runs, or when it was never started."""
        return self.process.poll() if self.process else None

    def stop(self, patience_s: float) -> bool:
        """Ask the process to end; kill it after ``patience_s`` seconds, which returns False.

        It is asked again and again: in about one of 700 stops under load granian's process did
        not act on the first signal. Python has such a fault, which may be it
        (https://github.com/python/cpython/issues/98140).
        """
        if self.process is None or self.process.poll() is not None:
            return True
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(min(ASK_AGAIN_S, left_s))
                return True
        self.process.kill()
        self.process.wait()
        return False


class _Embedded:
    """What is particular about serving from a data folder."""

    module = "local.dispatcher"

    def __init__(self, settings: Settings) -> None:
        self._folder = DataFolder(settings.data_dir)
        self.place = f"in {settings.data_dir}"

    def check(self) -> None:
        """Return if timers can be kept here. Raises ``StartupError``."""
        with self._folder.locked():
            pass  # before anything serves: a second server would serve the first one's timers

    def ready(self) -> bool:
        """Tell whether a request would be carried out now, and not wait for a dispatcher."""
        try:
            self._folder.connect(1).close()
        except OSError:
            return False
        return True


class _Emulated:
    """What is particular about serving from an emulator of AWS."""

    module = "local.pump"

    def __init__(self, settings: Settings) -> None:
        self.place = f"by the emulator at {settings.emulator}"

    def check(self) -> None:
        """Return if it is an emulator that timers go to. Raises ``StartupError``."""
        use_emulator()

    def ready(self) -> bool:
        """Tell whether timers can be kept: that is all of the API's own health."""
        return True


class Supervisor:
    """Runs until SIGTERM or SIGINT. The API goes first, then what fires, with what is in flight."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = (_Emulated if settings.engine == AWS else _Embedded)(settings)
        self._firing = Child(self._engine.module)
        self._api = Child("local.server")
        self._stopping = False

    def run(self) -> int:
        """Serve; return the exit code. Raises ``StartupError``."""
        self._settings.require_loopback_without_keys(self._settings.host)
        _wait_for_port(self._settings)
        self._engine.check()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._firing.start()
        self._api.start()
        answered = False
        try:
            answered = self._answers()
            if answered:
                print(_banner(self._settings, self._engine.place), flush=True)
            return self._watch()
        finally:
            self._stop(answered=answered)

    def _stop(self, *, answered: bool) -> None:
        api_patience_s = STOP_API_S if answered else STOP_STARTING_S
        for child, patience_s in ((self._api, api_patience_s), (self._firing, STOP_FIRING_S)):
            if not child.stop(patience_s) and answered:
                print(f"webhook-timers: {child.module} did not end: killed", file=sys.stderr)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _watch(self) -> int:
        while not self._stopping:
            for child in (self._firing, self._api):
                code = child.exit_code()
                if code == os.EX_CONFIG:
                    return code
                if code is not None and not self._stopping:
                    self._start_again(child, code)
            time.sleep(_POLL_S)
        return os.EX_OK

    @staticmethod
    def _start_again(child: Child, code: int) -> None:
        print(f"webhook-timers: {child.module} ended ({code}); starting it again", file=sys.stderr)
        time.sleep(max(0.0, child.started_at + _RESTART_S - time.monotonic()))
        child.start()

    def _answers(self) -> bool:
        """Wait until the API answers; False when it will not, which ``_watch`` explains."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and not self._stopping:
            if self._firing.exit_code() is not None or self._api.exit_code() is not None:
                return False
            if self._engine.ready() and _healthy(self._settings):
                return True
            time.sleep(_POLL_S)
        return False


def main() -> int:
    """Serve the API with firing timers; return the exit code."""
    try:
        return Supervisor(load()).run()
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return os.EX_CONFIG


def _healthy(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(reachable(settings.host), settings.port, timeout=5)
    try:
        connection.request("GET", "/health", headers={"Host": "localhost"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait_for_port(settings: Settings) -> None:
    """Return once the port is free. Raises ``PortTaken``.

    The server's own sockets share their port among its workers, and so would quietly share it
    with a second server: only a socket that does not share can tell.
    """
    deadline = time.monotonic() + PORT_WAIT_S
    while True:
        try:
            with socket.create_server((settings.host, settings.port)):
                return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise PortTaken(
                    f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                    f"try: make run PORT={settings.port + 1}"
                ) from error
        time.sleep(_POLL_S)


def _banner(settings: Settings, place: str) -> str:
    address = url(settings)
    key, header = "", ""
    if settings.needs_key:
        key = (
            "Every caller needs a key: make key TENANT=default, with the settings of this server\n"
        )
        header = " -H 'Authorization: Bearer wt_...'"
    return (
        f"Webhook Timers listens on {address}\n"
        f"Timers are kept {place}\n"
        f"{key}"
        "Set one:\n"
        f"  curl -X POST {address}/timers{header} -H 'Content-Type: application/json' \\\n"
        '    -d \'{"seconds": 5, "url": "http://127.0.0.1:9000/hook"}\''
    )
