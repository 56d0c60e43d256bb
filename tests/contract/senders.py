"""Both senders behind one constructor and one blocking ``send``, for contract tests."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import uvloop

from chalicelib.aws.sender import RequestsSender
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.sender import HttpSender
from chalicelib.service.ports import Sender
from tests.contract.socket_receiver import Receiver

AMPLE_S = 5.0
SHORT_S = 0.3
SOON_S = 1.0
"""A call with a deadline of ``SHORT_S`` is over within this, on a busy machine too."""

OPEN = Guard(allow_private=True)


class ClosableSender(Sender, Protocol):
    """A sender that keeps connections until it is closed."""

    def close(self) -> None: ...


class BlockingHttpSender:
    """The sender of the embedded engine, on an event loop in a thread of its own."""

    def __init__(
        self,
        deadline_s: float,
        guard: Guard,
        *,
        make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        **options: Any,
    ) -> None:
        self._loop = make_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._sender = asyncio.run_coroutine_threadsafe(
            self._make(deadline_s, guard, options), self._loop
        ).result()

    def send(self, call: Call) -> Outcome:
        return asyncio.run_coroutine_threadsafe(self._sender.send(call), self._loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._sender.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    @staticmethod
    async def _make(deadline_s: float, guard: Guard, options: dict[str, Any]) -> HttpSender:
        return HttpSender(deadline_s, guard, **options)


class FakeThreads:
    """Makes threads. The first one fails to start, as if the system had none left."""

    def __init__(self) -> None:
        self._refused = False

    def __call__(self, **options: Any) -> threading.Thread:
        if self._refused:
            return threading.Thread(**options)
        self._refused = True
        return _RefusedThread(**options)


class StartedThreads:
    """Starts threads and keeps them. The first ``refused`` fail, as if the system had none left."""

    def __init__(self, refused: int = 0) -> None:
        self._refused = refused
        self.started: list[threading.Thread] = []

    def __call__(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._refused:
            self._refused -= 1
            raise RuntimeError("can't start new thread")
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self.started.append(thread)


class _RefusedThread(threading.Thread):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")


Make = Callable[..., ClosableSender]
Start = Callable[..., ClosableSender]
Listen = Callable[..., Receiver]

SENDERS: dict[str, Make] = {
    "asyncio": BlockingHttpSender,
    "requests": RequestsSender,
}

AS_SERVED: dict[str, Make] = SENDERS | {
    "uvloop": functools.partial(BlockingHttpSender, make_loop=uvloop.new_event_loop),
}
"""The same, and once more on the event loop that ``make run`` uses."""


def call(receiver: Receiver, target: str = "/hook/7", **headers: str) -> Call:
    return Call(url=f"http://127.0.0.1:{receiver.port}{target}", headers=dict(headers))


def timed(sender: Sender, wanted: Call) -> tuple[Outcome, float]:
    """Send. Return the outcome and the seconds it took."""
    started = time.monotonic()
    outcome = sender.send(wanted)
    return outcome, time.monotonic() - started
