"""The API's side of the test clock: it reads the file, and has the dispatcher move the clock."""

from __future__ import annotations

from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.ipc.remote import DispatcherClient
from chalicelib.service.movable_clock import Advanced
from chalicelib.service.ports import Clock

MAX_ADVANCE_RESPONSE_S = 600.0
"""How long a request waits while the clock is moved. An advance ends earlier (time_travel.py)."""


class RemoteClock(DispatcherClient):
    """A ``MovableClock`` for many threads. Every reading reads a row of the file."""

    def __init__(self, folder: DataFolder, wall_clock: Clock) -> None:
        super().__init__(folder, response_timeout_s=MAX_ADVANCE_RESPONSE_S)
        self._wall_clock = wall_clock

    def __call__(self) -> float:
        """Return epoch milliseconds, UTC. Raises ``Unavailable``."""
        return self._reader.clock_state().now(self._wall_clock())

    def advance(self, tenant: str, delay_ms: int | None) -> Advanced:
        """Move the clock; see ``MovableClock.advance``."""
        arguments = {"tenant": tenant, "delay_ms": delay_ms}
        return messages.read_advanced(self._write("advance", arguments))
