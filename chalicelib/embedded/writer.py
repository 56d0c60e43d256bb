"""The one writer of the store: writes that arrive at the same time share one commit.

Statements run on the event loop, where they cost microseconds. The commit of a durable group waits
for the disk. It runs on a thread, unless the disk is faster than handing work to a thread. Writes
that arrive during a commit form the next group.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from chalicelib.domain.errors import TimersError, Unavailable
from chalicelib.embedded.database import LOG_BYTES
from chalicelib.embedded.store import SQLiteTimerStore

log = logging.getLogger(__name__)

T = TypeVar("T")

CHECKPOINT_CHANGES = 2_000
"""After this many changes of rows the write-ahead log is moved into the database file.

A longer log makes every read slower, and the next start too.
"""

MAX_INLINE_COMMIT_S = 0.001
"""If commits take no longer on average, they run on the event loop."""

_AVERAGE_WEIGHT = 0.1
"""The weight of the latest commit in the moving average of commit times."""


@dataclass(frozen=True, slots=True)
class _Write(Generic[T]):
    """One submitted operation. ``done`` receives its result or its error."""

    operation: Callable[[], T]
    durable: bool
    done: Callable[[T | TimersError], None]


class Writer:
    """Carries out operations on a store in groups, in the order in which they were submitted.

    It must be made and used on a running event loop.
    """

    def __init__(
        self,
        store: SQLiteTimerStore,
        *,
        log_bytes: int = LOG_BYTES,
        checkpoint_changes: int = CHECKPOINT_CHANGES,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``stopwatch`` measures commits, in seconds. See the constants for the other two."""
        self.store = store
        self._checkpoint_changes = checkpoint_changes
        self._stopwatch = stopwatch
        if store.path is not None:
            _fill_log(store.path, log_bytes)
        self._loop = asyncio.get_running_loop()
        # One thread: the store's connection may be used by one thread at a time.
        self._commit_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._waiting: list[_Write[Any]] = []
        # Commits start on the thread, until the disk has shown that it is fast.
        self._average_commit_s = 2 * MAX_INLINE_COMMIT_S
        # The store's changes when they were last looked at, and when the log was last moved.
        # An earlier process may have left writes in the log.
        self._seen_changes = store.changes
        self._moved_changes = self._seen_changes - 1
        # Busy from the first write that waits until none does, and during the restart of the log.
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, operation: Callable[[], T], *, durable: bool) -> asyncio.Future[T]:
        """Run ``operation`` in the next group; return its result once the group is committed.

        A durable operation is on disk by then. Any other operation survives the death of the
        process, but not a power cut. The future raises the ``TimersError`` of the operation itself,
        or ``Unavailable`` if the group could not be written. Then no write of the group applied.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: T | TimersError) -> None:
            if future.cancelled():  # the caller has gone; the write stands all the same
                return
            if isinstance(result, TimersError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.carry_out(operation, done, durable=durable)
        return future

    def carry_out(
        self, operation: Callable[[], T], done: Callable[[T | TimersError], None], *, durable: bool
    ) -> None:
        """Do the same as ``submit``, but call ``done`` with the result or the error.

        A future costs as much as a small write, so requests of the API do without one.
        """
        self._waiting.append(_Write(operation, durable, done))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: all writes of this turn of the event loop join the group.
            self._loop.call_soon(self._write_group)

    async def checkpoint(self) -> None:
        """Move the write-ahead log into the database file if it is long, or if writes have paused.

        Another connection moves most of it while writes go on. Writes wait only for the restart of
        the log, which moves the few that came since. Neither waits for readers: while one needs the
        log, the log grows.
        """
        path, changes = self.store.path, self.store.changes
        # Without writes since the last call: a copy of the database file alone should be whole.
        paused = changes == self._seen_changes
        self._seen_changes = changes
        due = 1 if paused else self._checkpoint_changes
        if path is None or changes - self._moved_changes < due:
            return
        await self._loop.run_in_executor(None, _checkpoint_passively, path)
        await self._until_idle()
        # Now busy without a group: writes that arrive wait until the log is restarted.
        self._busy = True
        self._idle.clear()
        try:
            if await self._loop.run_in_executor(self._commit_thread, self.store.restart_log):
                self._moved_changes = self.store.changes
        except sqlite3.Error as error:
            log.warning("the write-ahead log could not be restarted: %s", error)
        finally:
            self._next_group()

    async def close(self) -> None:
        """Finish the submitted writes and close the store."""
        await self._until_idle()
        self._commit_thread.shutdown()
        self.store.close()

    async def _until_idle(self) -> None:
        # A loop: another write may begin between the event and this task's turn.
        while self._busy:
            await self._idle.wait()

    def _write_group(self) -> None:
        group, self._waiting = self._waiting, []
        # One durable write makes the group durable: the others get more than they asked for.
        durable = any(write.durable for write in group)
        try:
            self.store.begin(durable=durable)
            results = [_run(write.operation) for write in group]
            # A commit that is not durable does not wait for the disk.
            on_thread = durable and self._average_commit_s > MAX_INLINE_COMMIT_S
            if not on_thread:
                self._commit(durable=durable)
        except Exception as error:  # noqa: BLE001 - each write of the group fails with it
            self._fail(group, error)
            return
        if not on_thread:
            self._succeed(group, results)
            return
        commit = self._loop.run_in_executor(
            self._commit_thread, functools.partial(self._commit, durable=True)
        )
        commit.add_done_callback(lambda done: self._committed(group, results, done))

    def _commit(self, *, durable: bool) -> None:
        started = self._stopwatch()
        self.store.commit()
        if durable:
            took_s = self._stopwatch() - started
            self._average_commit_s += (took_s - self._average_commit_s) * _AVERAGE_WEIGHT

    def _committed(
        self, group: list[_Write[Any]], results: list[Any], done: asyncio.Future[None]
    ) -> None:
        error = done.exception()
        if isinstance(error, Exception):
            self._fail(group, error)
        else:
            self._succeed(group, results)

    def _succeed(self, group: list[_Write[Any]], results: list[Any]) -> None:
        for write, result in zip(group, results, strict=True):
            write.done(result)
        self._next_group()

    def _fail(self, group: list[_Write[Any]], error: Exception) -> None:
        try:
            self.store.rollback()
        except sqlite3.Error:
            log.exception("a failed group could not be rolled back")
        # A full disk needs no traceback, a fault in our code does.
        if not isinstance(error, (sqlite3.Error, Unavailable)):
            log.error("a write failed", exc_info=error)
        detail = (
            error.detail if isinstance(error, Unavailable) else f"Nothing was written: {error}."
        )
        for write in group:
            write.done(Unavailable(detail))
        self._next_group()

    def _next_group(self) -> None:
        if self._waiting:
            self._loop.call_soon(self._write_group)
        else:
            self._busy = False
            self._idle.set()


def _run(operation: Callable[[], T]) -> T | TimersError:
    """Return the result of ``operation``, or the error with which it refused to write."""
    try:
        return operation()
    except Unavailable:
        # SQLite failed, so the transaction may be lost: the whole group fails.
        raise
    except TimersError as refusal:
        return refusal


def _fill_log(path: str, size: int) -> None:
    """Fill the write-ahead log with zeros. SQLite reads a frame of zeros as the end of the log."""
    try:
        with Path(path + "-wal").open("ab") as log_file:
            log_file.write(bytes(max(0, size - log_file.tell())))
            log_file.flush()
            os.fsync(log_file.fileno())
    except OSError as error:
        log.warning("the write-ahead log starts small: %s", error)


def _checkpoint_passively(path: str) -> None:
    """Move the pages that no reader needs, without waiting for anybody (PASSIVE)."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        log.warning("the write-ahead log could not be moved: %s", error)
    finally:
        connection.close()
