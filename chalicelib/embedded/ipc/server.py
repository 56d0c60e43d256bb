"""The dispatcher's side of the local socket: carries out the writes of the API's processes."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Callable
from typing import Any, cast

from chalicelib.domain.errors import TimersError
from chalicelib.domain.timer import NewTimer, Status, Timer
from chalicelib.embedded.ipc import messages as wire
from chalicelib.embedded.writer import Writer
from chalicelib.service.ports import Reschedule

log = logging.getLogger(__name__)


class WriteServer:
    """Answers requests by submitting them to the writer; each answer follows its commit."""

    def __init__(self, writer: Writer, on_due_at: Callable[[int], None]) -> None:
        self._writer = writer
        self._on_due_at = on_due_at
        self._server: asyncio.Server | None = None
        self._sessions: set[_Session] = set()
        store = writer.store
        self._operations: dict[str, Callable[..., Any]] = {
            "create": self._create,
            "cancel": store.cancel,
            "purge": store.purge,
            "reschedule": self._reschedule,
            "check": store.check,
        }

    async def start(self, listener: socket.socket) -> None:
        """Begin to answer on ``listener``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._open_session, sock=listener)

    def stop(self) -> None:
        """Stop listening and hang up; what was submitted is still written."""
        if self._server:
            self._server.close()
        for session in list(self._sessions):
            session.hang_up()

    def handle(self, line: bytes, answer: Callable[[bytes], None]) -> None:
        """Carry out one request, and ``answer`` it once that is committed."""
        method, arguments = wire.read_request(line)

        def done(result: object) -> None:
            if isinstance(result, TimersError):
                answer(wire.error(result))
                return
            answer(wire.result(result))
            if method in _WAKING:
                self._on_due_at(arguments[_WAKING[method]])

        operation = functools.partial(self._operations[method], **arguments)
        self._writer.carry_out(operation, done, durable=True)

    def _create(self, **fields: Any) -> int:
        return self._writer.store.create(NewTimer(**fields), _armed).id

    def _reschedule(self, *, status: str, **fields: Any) -> Timer:
        return self._writer.store.reschedule(Reschedule(status=Status(status), **fields))

    def _open_session(self) -> _Session:
        session = _Session(self, self._sessions)
        self._sessions.add(session)
        return session


_WAKING = {"create": "due_at", "reschedule": "at"}
"""Methods that may bring the next wake-up forward, and the argument that says to when."""


def _armed(_timer: Timer) -> bool:
    """The process that stores a timer here is the one that wakes it."""
    return True


class _Session(asyncio.Protocol):
    """One connection: requests by the line, answers in the order they are ready."""

    def __init__(self, server: WriteServer, sessions: set[_Session]) -> None:
        self._server = server
        self._sessions = sessions
        self._transport: asyncio.Transport | None = None
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._server.handle(line, self._answer)

    def hang_up(self) -> None:
        if self._transport:
            self._transport.close()

    def _answer(self, line: bytes) -> None:
        if self._transport is not None:
            self._transport.write(line)
