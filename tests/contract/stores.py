"""The stores that the contract suite runs on, each with its due index."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.claim import Claim, ClaimResult, Settlement
from chalicelib.domain.rate import Rate
from chalicelib.domain.timer import Timer, Wakeup
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc.client import RemoteTimerStore
from chalicelib.embedded.ipc.server import WriteServer
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from chalicelib.service.ports import ClaimStore, SweepCutoffs, TimerStore
from tests.support.clock import ManualClock
from tests.support.due import all_due
from tests.support.wakeups import RecordingWakeups

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

Due = Callable[[int, int], Sequence[Wakeup]]
"""Return the wake-ups that are due at a time, earliest first, at most so many."""


class Store:
    """One store with the methods for the API, those for deliveries, and its due index."""

    def __init__(
        self,
        api: TimerStore,
        claims: ClaimStore,
        due: Due,
        wakeups: RecordingWakeups | None = None,
    ) -> None:
        self.create = api.create
        self.create_once = api.create_once
        self.find_once = api.find_once
        self.set_by_key = api.set_by_key
        self.get_by_key = api.get_by_key
        self.get = api.get
        self.find_many = api.find_many
        self.create_many = api.create_many
        self.list = api.list
        self.list_due = api.list_due
        self.cancel = api.cancel
        self.purge = api.purge
        self.reschedule = api.reschedule
        self.check = api.check
        self.identity = claims.identity
        self.claim = claims.claim
        self.settle = claims.settle
        self.due = due
        self._wakeups = wakeups

    def break_wakeups(self) -> None:
        """Make wake-ups fail from now on, if the engine registers any."""
        if self._wakeups is not None:
            self._wakeups.broken = True


@contextmanager
def sqlite_in_memory(rate: Rate | None) -> Iterator[Store]:
    """Yield the store that the embedded engine's writer uses."""
    sqlite = SQLiteTimerStore.in_memory(rate)
    yield Store(sqlite, sqlite, partial(all_due, sqlite))
    sqlite.close()


@contextmanager
def dynamodb(
    client: DynamoDBClient, table: str, clock: ManualClock, rate: Rate | None
) -> Iterator[Store]:
    """Yield the store that the AWS engine uses."""
    wakeups = RecordingWakeups()
    waking = WakingTimerStore(DynamoDBTimerStore(client, table, clock, rate=rate), wakeups, clock)
    index = DynamoDBDueIndex(client, table)

    def due(now: int, limit: int) -> Sequence[Wakeup]:
        cutoffs = SweepCutoffs(overdue=now, upcoming=now, woken=now)
        found = (
            wakeup
            for shard in index.shards()
            for page in index.find(shard, cutoffs)
            for wakeup in page
        )
        return heapq.nsmallest(limit, found, key=lambda wakeup: (wakeup.at, wakeup.id))

    yield Store(waking, waking, due, wakeups)


@contextmanager
def remote(folder: DataFolder, rate: Rate | None) -> Iterator[Store]:
    """Yield the store that the API's processes use: reads of the file, writes by the socket."""
    folder.prepare()
    with _dispatcher_process(folder, rate) as claims:
        api = RemoteTimerStore(folder)
        yield Store(api, claims, claims.due)
        api.close()


class _OnLoop:
    """The writer's store, used from outside its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: SQLiteTimerStore) -> None:
        self._loop = loop
        self._store = store

    def identity(self) -> str:
        return self._call(self._store.identity)

    def get(self, tenant: str, timer_id: int) -> Timer:
        return self._call(lambda: self._store.get(tenant, timer_id))

    def claim(self, claim: Claim) -> ClaimResult:
        return self._call(lambda: self._store.claim(claim))

    def settle(self, settlement: Settlement) -> bool:
        return self._call(lambda: self._store.settle(settlement))

    def due(self, now: int, limit: int) -> Sequence[Wakeup]:
        return self._call(lambda: all_due(self._store, now, limit))

    def _call(self, work: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def carry_out() -> None:
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                done.set_exception(error)

        self._loop.call_soon_threadsafe(carry_out)
        return done.result()


async def _let_loop_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@contextmanager
def _dispatcher_process(folder: DataFolder, rate: Rate | None) -> Iterator[_OnLoop]:
    """Run the writer and its server in a thread, as the dispatcher's process does."""
    started: Future[_OnLoop] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        writer = Writer(SQLiteTimerStore.open(str(folder.store), rate), log_bytes=0)
        server = WriteServer(writer, on_next_attempt=lambda _tenant, _at: None)
        await server.start(folder.listen())
        loop = asyncio.get_running_loop()
        started.set_result(_OnLoop(loop, writer.store))
        await stop.wait()
        # A connection may have been accepted and have no session yet; then all must close.
        await _let_loop_run()
        server.stop()
        await writer.close()
        await _let_loop_run()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    yield started.result()
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
