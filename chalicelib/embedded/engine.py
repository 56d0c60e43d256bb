"""The embedded engine, put together: one store, its writer, the dispatcher, the local socket."""

from __future__ import annotations

import asyncio
import logging
import random
import resource
from collections.abc import Callable

from chalicelib.domain.rate import Rate
from chalicelib.embedded.dispatcher import Dispatcher, DispatcherPolicy
from chalicelib.embedded.folder import DataFolder, make_private
from chalicelib.embedded.ipc.server import WriteServer
from chalicelib.embedded.sender import AiohttpSender
from chalicelib.embedded.writer import Writer
from chalicelib.service.ports import Clock

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
FILES_RESERVED = 256
"""Open files that are not webhooks in flight: the store, the API's connections, the log."""


async def serve(
    folder: DataFolder,
    make_sender: Callable[[], AiohttpSender],
    policy: DispatcherPolicy,
    clock: Clock,
    stopped: asyncio.Event,
    *,
    rate: Rate | None = None,
) -> None:
    """Own ``folder`` and fire its timers until ``stopped``. Raises ``StartupError``."""
    with folder.locked():
        make_private(folder.store)
        writer = Writer(str(folder.store), rate)
        sender = make_sender()
        dispatcher = Dispatcher(writer, sender, policy, clock, random.random)
        server = WriteServer(writer, dispatcher.wake_at)
        await server.start(folder.listen())
        jobs = [
            asyncio.create_task(dispatcher.run()),
            asyncio.create_task(dispatcher.keep_house()),
        ]
        try:
            await _until(stopped, jobs)
        finally:
            server.stop()
            await dispatcher.stop(STOP_GRACE_S)
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            await writer.close()
            await sender.close()


async def _until(stopped: asyncio.Event, jobs: list[asyncio.Task[None]]) -> None:
    """Wait until ``stopped`` is set; raise what ended a job before."""
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait([stop, *jobs], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    for job in jobs:
        if job.done():
            job.result()


def raise_file_limit(wanted: int) -> int:
    """Allow ``wanted`` webhooks in flight as far as the system lets us; return how many it does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + FILES_RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - FILES_RESERVED)) if soft != resource.RLIM_INFINITY else wanted
