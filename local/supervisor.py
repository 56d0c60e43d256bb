"""The supervisor of the offline server: it starts two processes and restarts those that die.

One serves the API. The other fires timers: the dispatcher of the embedded engine, or the pump of
the aws engine on an emulator.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from types import FrameType

from chalicelib import bootstrap
from chalicelib.bootstrap import Service
from chalicelib.domain.errors import StartupError
from chalicelib.settings import Settings
from local.address import reachable
from local.banner import banner
from local.child import Child
from local.firing import firing_of
from local.port import wait_for_port
from local.watchdog import CHECK_TIMEOUT_S, Watchdog

START_S = 15.0
"""How long to wait for the API's first response; then the supervisor goes on without a banner."""

STOP_API_S = 4.0
"""How long the API may take to finish its requests; then it is killed."""

STOP_HANGING_S = 8.0
"""How long an API that hangs may take. After 3.5 s it kills its workers, then it ends itself."""

STOP_STARTING_S = 0.5
"""The same before its first response: it has no requests, and its workers may miss a signal."""

STOP_FIRING_S = 8.0
"""How long calls in flight may take to finish (the dispatcher allows 5 s) and be written."""

_POLL_S = 0.05
_MIN_RESTART_S = 0.5
"""The least time between two starts of a child, for one that fails at once."""


class Supervisor:
    """Runs the server until SIGTERM or SIGINT.

    At the end the API stops first. Then the dispatcher or the pump finishes the calls in flight and
    stops.
    """

    def __init__(self, service: Service) -> None:
        self._settings = service.settings
        self._firing = firing_of(service)
        self._firing_process = Child(self._firing.module)
        self._api = Child("local.server")
        self._watchdog = Watchdog(
            lambda: _responds(service.settings), service.settings.workers, pause=time.sleep
        )
        self._stopping = False

    def run(self) -> int:
        """Serve; return the exit code. Raises ``StartupError``."""
        self._settings.require_loopback_without_keys(self._settings.host)
        wait_for_port(self._settings.host, self._settings.port)
        self._firing.prepare()
        self._firing.check()
        # Before the children start: a signal must not end this process without stopping them.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._firing_process.start()
        self._api.start()
        responded = False
        try:
            responded = self._wait_for_response()
            self._watchdog.start()
            if responded:
                print(banner(self._settings, self._firing.place), flush=True)
            return self._watch()
        finally:
            self._stop(responded=responded)

    def _wait_for_response(self) -> bool:
        """Wait until the API is healthy. Return False if a child ends first, or at a signal."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and not self._stopping:
            if self._firing_process.exit_code() is not None or self._api.exit_code() is not None:
                return False
            # Ready first: a health check without a dispatcher would wait for seconds.
            if self._firing.ready() and _is_healthy(self._settings):
                return True
            time.sleep(_POLL_S)
        return False

    def _watch(self) -> int:
        """Restart children that end, until a signal; return the exit code."""
        # Polled, because subprocess offers nothing to wait on, and only Linux has os.pidfd_open.
        while not self._stopping:
            for child in (self._firing_process, self._api):
                code = child.exit_code()
                if code == os.EX_CONFIG:
                    return code  # it would end like this again; it has printed why
                if code is not None and not self._stopping:
                    self._restart(child, code)
            if self._watchdog.api_hangs and not self._stopping:
                self._restart_hanging_api()
            time.sleep(_POLL_S)
        return os.EX_OK

    def _restart_hanging_api(self) -> None:
        print("webhook-timers: the API does not respond; starting it again", file=sys.stderr)
        self._api.stop(STOP_HANGING_S)
        self._api.start()
        self._watchdog.forget()

    def _restart(self, child: Child, code: int) -> None:
        print(f"webhook-timers: {child.module} ended ({code}); starting it again", file=sys.stderr)
        time.sleep(max(0.0, child.started_at + _MIN_RESTART_S - time.monotonic()))
        child.start()
        if child is self._api:
            self._watchdog.forget()

    def _stop(self, *, responded: bool) -> None:
        api_patience_s = STOP_API_S if responded else STOP_STARTING_S
        # The API first: a request that it still accepted needs the dispatcher.
        for child, patience_s in (
            (self._api, api_patience_s),
            (self._firing_process, STOP_FIRING_S),
        ):
            # An API that is killed during its start loses nothing, so there is nothing to report.
            if not child.stop(patience_s) and responded:
                print(f"webhook-timers: {child.module} did not end: killed", file=sys.stderr)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def main() -> int:
    """Serve the API with firing timers; return the exit code (``sysexits.h``)."""
    try:
        return Supervisor(bootstrap.service()).run()
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return os.EX_CONFIG


def _is_healthy(settings: Settings) -> bool:
    return _status_of("/health", settings) == http.client.OK


def _responds(settings: Settings) -> bool:
    return _status_of("/", settings) is not None


def _status_of(path: str, settings: Settings) -> int | None:
    """Return the status of the API's response, None if there was none in time."""
    host = reachable(settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=CHECK_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
