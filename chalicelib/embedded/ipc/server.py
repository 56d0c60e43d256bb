"""The dispatcher's side of the local socket: it performs the writes of the API's processes."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from chalicelib.domain.errors import TimersError, Unavailable
from chalicelib.domain.keyed import KeyedTimer
from chalicelib.domain.timer import Timer
from chalicelib.embedded.ipc import messages
from chalicelib.embedded.writer import Writer

_NEXT_ATTEMPT_ARGUMENTS = {"create": "due_at", "create_once": "due_at", "reschedule": "at"}
"""The methods whose arguments say when a timer is attempted next, and which one does (epoch ms)."""


log = logging.getLogger(__name__)

Job = Callable[..., Coroutine[Any, Any, Any]]
"""What the dispatcher does for a request that is more than one write. It returns JSON."""


class WriteServer:
    """Submits requests to the writer, and responds once each is committed."""

    def __init__(
        self,
        writer: Writer,
        on_next_attempt: Callable[[str, int], None],
        jobs: Mapping[str, Job] | None = None,
    ) -> None:
        """``on_next_attempt`` is called with the tenant and time (epoch ms) of each new attempt.

        ``jobs`` are further methods by name.
        """
        self._writer = writer
        self._on_next_attempt = on_next_attempt
        self._server: asyncio.Server | None = None
        self._sessions: set[_Session] = set()
        self._jobs = jobs or {}
        self._running_jobs: set[asyncio.Task[None]] = set()
        store = writer.store
        self._operations: dict[str, Callable[..., Any]] = {
            "create": self._create,
            "create_once": self._create_once,
            "create_many": self._create_many,
            "set_by_key": self._set_by_key,
            "cancel": store.cancel,
            "purge": store.purge,
            "reschedule": self._reschedule,
            "check": store.check,
        }

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on ``listener``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._open_session, sock=listener)

    def stop(self) -> None:
        """Close the listener and all connections. Submitted requests are still written."""
        if self._server:
            self._server.close()
        for job in self._running_jobs:
            job.cancel()
        for session in list(self._sessions):
            session.close()

    def handle(self, line: bytes, respond: Callable[[bytes], None]) -> None:
        """Submit one request to the writer, and ``respond`` once it is committed."""
        method, arguments = messages.read_request(line)
        if method in self._jobs:
            task = asyncio.create_task(self._run_job(self._jobs[method](**arguments), respond))
            self._running_jobs.add(task)
            task.add_done_callback(self._running_jobs.discard)
            return

        def done(result: object) -> None:
            if isinstance(result, TimersError):
                respond(messages.error(result))
                return
            respond(messages.result(result))
            # Only after the commit: an earlier round would not find the timer.
            for tenant, at in _next_attempts(method, arguments, result):
                self._on_next_attempt(tenant, at)

        operation = functools.partial(self._operations[method], **arguments)
        self._writer.carry_out(operation, done, durable=True)

    async def _run_job(
        self, job: Coroutine[Any, Any, Any], respond: Callable[[bytes], None]
    ) -> None:
        try:
            respond(messages.result(await job))
        except TimersError as error:
            respond(messages.error(error))
        except Exception:
            log.exception("a request failed")
            respond(messages.error(Unavailable("The request failed; it is logged.")))

    def _create(self, **arguments: Any) -> int:
        return self._writer.store.create(messages.read_new_timer(arguments)).id

    def _create_many(self, news: list[dict[str, Any]]) -> list[list[Any]]:
        created = self._writer.store.create_many([messages.read_new_timer(new) for new in news])
        return [messages.from_created(each) for each in created]

    def _create_once(self, **arguments: Any) -> tuple[int, bool]:
        done = self._writer.store.create_once(messages.read_new_timer(arguments))
        return done.timer_id, done.replayed

    def _set_by_key(self, **arguments: Any) -> KeyedTimer:
        return self._writer.store.set_by_key(messages.read_set_by_key(arguments))

    def _reschedule(self, **arguments: Any) -> Timer:
        return self._writer.store.reschedule(messages.read_reschedule(arguments))

    def _open_session(self) -> _Session:
        session = _Session(self, self._sessions)
        self._sessions.add(session)
        return session


def _next_attempts(method: str, arguments: dict[str, Any], result: object) -> list[tuple[str, int]]:
    """Return the tenant and the next attempt of the timer, or timers, that a write has set."""
    if method == "create_many":
        # One tenant's: its earliest is enough.
        return [min((new["tenant"], new["due_at"]) for new in arguments["news"])]
    if isinstance(result, KeyedTimer):
        at = result.timer.next_attempt_at
        return [] if at is None else [(arguments["tenant"], at)]
    name = _NEXT_ATTEMPT_ARGUMENTS.get(method)
    return [] if name is None else [(arguments["tenant"], arguments[name])]


class _Session(asyncio.Protocol):
    """One connection: a request a line, responses in the order in which they are ready.

    A response has the number of its request.
    """

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
        # A read may end within a line: its rest comes with the next one.
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            number, request = messages.read_number(line)
            self._server.handle(request, functools.partial(self._respond, number))

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def _respond(self, number: int, response: bytes) -> None:
        # The client may have gone while its request waited for the commit.
        if self._transport is not None:
            self._transport.write(messages.numbered(number, response))
