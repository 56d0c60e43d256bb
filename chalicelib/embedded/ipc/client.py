"""The API's side of the engine: reads the file itself, sends writes to the process that owns it."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import NewTimer, Status, Timer
from chalicelib.embedded.database import open_reader
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc import messages as wire
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.service.ports import Arm, Claim, Page, Reschedule, Settlement, TimerStore

CONNECT_S = 5.0
"""How long a request waits for a dispatcher that is starting, or being started again."""

ANSWER_S = 10.0
_RETRY_S = 0.02

Parts = list[bytes]


class RemoteTimerStore(TimerStore):
    """The store as the API's threads see it: each has its own reader and its own connection."""

    def __init__(
        self,
        folder: DataFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._sleep = sleep
        self._thread = threading.local()

    def identity(self) -> str:
        """Return the random name this store was born with."""
        return self._reader.identity()

    def create(self, new: NewTimer, arm: Arm) -> Timer:
        """Have ``new`` stored; ``arm`` is not asked, for who stores it also wakes it."""
        return Timer.first(new, self._write("create", wire.fields(new)))

    def get(self, tenant: str, timer_id: int) -> Timer:
        """Return one timer. Raises ``TimerNotFound``."""
        return self._reader.get(tenant, timer_id)

    def list(self, tenant: str, *, before: int | None, status: Status | None, limit: int) -> Page:
        """Return timers with an id below ``before``, highest first, at most ``limit``."""
        return self._reader.list(tenant, before=before, status=status, limit=limit)

    def cancel(self, tenant: str, timer_id: int, now: int) -> Timer:
        """Have one timer removed. Raises ``TimerNotFound`` and ``TimerInFlight``."""
        fields = {"tenant": tenant, "timer_id": timer_id, "now": now}
        return wire.read_timer(self._write("cancel", fields))

    def purge(self, tenant: str, *, before: int | None, limit: int) -> int | None:
        """Have up to ``limit`` timers below ``before`` removed."""
        fields = {"tenant": tenant, "before": before, "limit": limit}
        lowest: int | None = self._write("purge", fields)
        return lowest

    def due(self, now: int, limit: int) -> NoReturn:
        """Only the dispatcher looks for what is due, on the store itself."""
        self._refuse()

    def claim(self, claim: Claim) -> NoReturn:
        """Only the dispatcher claims, on the store itself."""
        self._refuse()

    def settle(self, settlement: Settlement) -> NoReturn:
        """Only the dispatcher settles, on the store itself."""
        self._refuse()

    def reschedule(self, change: Reschedule) -> Timer:
        """Have one timer made outstanding at another time."""
        return wire.read_timer(self._write("reschedule", wire.fields(change)))

    def check(self) -> None:
        """Return if the store can be read and written; raise ``Unavailable`` otherwise."""
        self._write("check", {})
        self._reader.next_due_at()

    @staticmethod
    def _refuse() -> NoReturn:
        raise NotImplementedError("this belongs to the dispatcher")

    @property
    def _reader(self) -> SQLiteTimerStore:
        reader: SQLiteTimerStore | None = getattr(self._thread, "reader", None)
        if reader is None:
            self._connection()  # once the dispatcher listens, the file is there and migrated
            reader = SQLiteTimerStore(open_reader(str(self._folder.store)))
            self._thread.reader = reader
        return reader

    def _connection(self) -> socket.socket:
        connection: socket.socket | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._connect()
            self._thread.connection = connection
        return connection

    def _connect(self) -> socket.socket:
        deadline = self._clock() + CONNECT_S
        while True:
            try:
                return self._folder.connect(ANSWER_S)
            except OSError as error:
                if self._clock() >= deadline:
                    raise Unavailable("The dispatcher is not running.") from error
            self._sleep(_RETRY_S)

    def _write(self, method: str, arguments: dict[str, Any]) -> Any:
        message = wire.request(method, arguments)
        try:
            line = self._exchange(message)
        except OSError as error:
            self._hang_up()
            raise Unavailable(
                "The dispatcher was lost before it answered: the request may have been carried out."
            ) from error
        return wire.read_answer(line)

    def _exchange(self, message: bytes) -> bytes:
        """Send one request on a connection that is known to be open, and read its answer."""
        connection = self._connection()
        if _hung_up(connection):
            self._hang_up()
            connection = self._connection()
        connection.sendall(message)
        parts: Parts = []
        while not parts or not parts[-1].endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError("the dispatcher hung up")
            parts.append(part)
        return b"".join(parts)

    def _hang_up(self) -> None:
        connection: socket.socket | None = getattr(self._thread, "connection", None)
        if connection is not None:
            connection.close()
            self._thread.connection = None


def _hung_up(connection: socket.socket) -> bool:
    """Tell whether the other side has closed an idle connection, which owes us nothing to read."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
