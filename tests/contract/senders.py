"""Every sender the service has, made alike for tests."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Protocol

import uvloop

from chalicelib.aws.sender import RequestsSender
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.embedded.sender import AiohttpSender
from chalicelib.service.ports import Sender
from tests.contract.wire import Receiver

AMPLE_S = 5.0
SHORT_S = 0.3
SOON_S = 1.0
"""Within this a call with a deadline of ``SHORT_S`` is over on a busy machine too."""

OPEN = Guard(allow_private=True)


class ClosableSender(Sender, Protocol):
    """A sender that holds connections."""

    def close(self) -> None: ...


class OnALoop:
    """The sender of the embedded engine, on an event loop in a thread of its own."""

    def __init__(
        self,
        deadline_s: float,
        guard: Guard,
        *,
        make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self._loop = make_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._sender = asyncio.run_coroutine_threadsafe(
            self._make(deadline_s, guard), self._loop
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
    async def _make(deadline_s: float, guard: Guard) -> AiohttpSender:
        return AiohttpSender(deadline_s, guard)


Make = Callable[[float, Guard], ClosableSender]
Start = Callable[..., ClosableSender]
Listen = Callable[..., Receiver]

SENDERS: dict[str, Make] = {
    "aiohttp": OnALoop,
    "requests": RequestsSender,
}

AS_SERVED: dict[str, Make] = SENDERS | {
    "aiohttp on uvloop": functools.partial(OnALoop, make_loop=uvloop.new_event_loop),
}
"""With the event loop that ``make run`` uses, too."""


def call(receiver: Receiver, target: str = "/hook/7", **headers: str) -> Call:
    return Call(url=f"http://127.0.0.1:{receiver.port}{target}", headers=dict(headers))


def timed(sender: Sender, wanted: Call) -> tuple[Outcome, float]:
    """Send, and return the outcome and how many seconds that took."""
    started = time.monotonic()
    outcome = sender.send(wanted)
    return outcome, time.monotonic() - started
