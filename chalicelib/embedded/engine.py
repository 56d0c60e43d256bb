"""The embedded engine: it connects the store, the writer, the dispatcher and the sender."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.domain.errors import StoreFileError
from chalicelib.domain.quota import Quota
from chalicelib.embedded import open_files
from chalicelib.embedded.egress import EgressLimits
from chalicelib.embedded.folder import DataFolder, make_private
from chalicelib.service.options import EngineOptions
from chalicelib.service.ports import AsyncSender

if TYPE_CHECKING:
    from chalicelib.embedded.api_keys import SQLiteApiKeyStore
    from chalicelib.embedded.clock import DispatcherClock
    from chalicelib.embedded.dispatcher import Dispatcher
    from chalicelib.embedded.ipc.client import RemoteTimerStore
    from chalicelib.embedded.ipc.clock import RemoteClock
    from chalicelib.embedded.store import SQLiteTimerStore
    from chalicelib.embedded.writer import Writer

STOP_GRACE_S = 5.0
"""How long calls in flight may take to finish when the engine stops."""


class EmbeddedEngine:
    """The timers of one data folder.

    Many processes may use the stores. Exactly one of them must ``run``: it fires the timers and
    carries out the writes of all others.
    """

    request_budget_ms = math.inf
    """No gateway cuts a request off, as API Gateway does on AWS."""

    def __init__(
        self,
        data_dir: Path,
        options: EngineOptions,
        *,
        egress: EgressLimits,
        quota: Quota,
        test_clock: bool = False,
    ) -> None:
        """``egress`` limits the calls; the system's open files may allow fewer in flight.

        With ``test_clock`` the clock can be moved, and may have been moved before.
        """
        self.folder = DataFolder(data_dir)
        self._options = options
        self._egress = egress
        self._quota = quota
        self._test_clock = test_clock

    # Imports are late: a command that makes an API key needs neither the sender nor the dispatcher.

    @cached_property
    def timers(self) -> RemoteTimerStore:
        """The store of timers, for every process."""
        from chalicelib.embedded.ipc.client import RemoteTimerStore

        return RemoteTimerStore(self.folder)

    @cached_property
    def clock(self) -> RemoteClock:
        """The test clock, for every process."""
        from chalicelib.embedded.ipc.clock import RemoteClock

        return RemoteClock(self.folder, self._options.clock)

    @cached_property
    def api_keys(self) -> SQLiteApiKeyStore:
        """The store of API keys."""
        from chalicelib.embedded.api_keys import SQLiteApiKeyStore

        return SQLiteApiKeyStore(self.folder)

    async def run(self, stopped: asyncio.Event) -> None:
        """Hold the folder's lock and fire its timers until ``stopped``. Raises ``StartupError``."""
        from chalicelib.embedded.ipc.server import WriteServer
        from chalicelib.embedded.sender import HttpSender
        from chalicelib.embedded.store import SQLiteTimerStore
        from chalicelib.embedded.time_travel import TimeTravel
        from chalicelib.embedded.writer import Writer

        options = self._options
        with self.folder.locked():
            make_private(self.folder.store)
            store = SQLiteTimerStore.open(str(self.folder.store), options.rate, self._quota)
            clock = self._clock_of(store)
            writer = Writer(store)
            sender = HttpSender(
                options.send_timeout_s,
                options.guard,
                tenant_share=self._egress.tenant_share,
                keep_responses=options.keep_responses,
            )
            dispatcher = self._dispatcher(writer, sender, clock)
            travel = TimeTravel(clock, dispatcher, writer)
            more = {"advance": travel.advance} if self._test_clock else {}
            server = WriteServer(writer, dispatcher.wake_at, more)
            await server.start(self.folder.listen())
            jobs = [
                asyncio.create_task(dispatcher.run()),
                asyncio.create_task(dispatcher.maintain_store()),
            ]
            try:
                await _wait_until(stopped, jobs)
            finally:
                # First no new writes, then no new calls. Then the last outcomes are written.
                server.stop()
                await dispatcher.stop(STOP_GRACE_S)
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
                await writer.close()
                await sender.close()

    def _clock_of(self, store: SQLiteTimerStore) -> DispatcherClock:
        """Return the clock of this folder, which goes on from where it was moved.

        Raises ``StoreFileError`` for a moved clock without a test clock: every timer would be late.
        """
        from chalicelib.embedded.clock import DispatcherClock

        state = store.clock_state()
        if state.moved and not self._test_clock:
            raise StoreFileError(
                f"the clock of {self.folder.store} was moved, so it works only with a test clock "
                "(make run CLOCK=test); name another folder with DATA_DIR=…"
            )
        if state.stopped_at is not None:  # the process ended while the clock was moved
            state = state.running(self._options.clock())
            store.set_clock(state)
        return DispatcherClock(self._options.clock, state)

    def _dispatcher(
        self, writer: Writer, sender: AsyncSender, clock: DispatcherClock
    ) -> Dispatcher:
        from chalicelib.embedded.dispatcher import Dispatcher, DispatcherPolicy

        options = self._options
        # Read once: here a new secret takes effect with a restart.
        keys = options.signing_keys or ()
        policy = DispatcherPolicy(
            lease_ms=options.lease_ms,
            retry_delays_s=options.retry_delays_s,
            signing_keys=lambda: keys,
            retention_days=options.retention_days,
            egress=replace(
                self._egress, max_in_flight=open_files.raise_limit(self._egress.max_in_flight)
            ),
        )
        token = partial(secrets.token_hex, 8)
        return Dispatcher(
            writer,
            sender,
            policy,
            clock,
            random=random.random,
            token=token,
            ahead_ms=clock.ahead_ms,
        )


async def _wait_until(stopped: asyncio.Event, jobs: list[asyncio.Task[None]]) -> None:
    """Wait until ``stopped`` is set; raise the error of a job that ended before."""
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait([waiting, *jobs], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for job in jobs:
        if job.done():
            job.result()
