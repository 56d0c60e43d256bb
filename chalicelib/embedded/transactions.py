"""The transactions of a SQLite store: opened one by one, or by the writer for a whole group."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chalicelib.embedded.database import unavailable_on_error


class TransactionalStore:
    """A store on one connection, which has at most one open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # How `synchronous` is set now; None before the first transaction sets it.
        self._durable: bool | None = None
        # In memory, threads share the connection: one must not join another's transaction.
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all statements inside, durably, or none of them. Raises ``Unavailable``."""
        with self._lock, unavailable_on_error():
            # The writer has opened one for its whole group, and commits it.
            if self._connection.in_transaction:
                yield
                return
            self.begin(durable=True)
            try:
                yield
            except BaseException:
                self.rollback()
                raise
            self.commit()

    def begin(self, *, durable: bool) -> None:
        """Open a transaction. A durable one is on disk when ``commit`` returns."""
        # NORMAL syncs at a checkpoint only. It cannot be changed inside a transaction.
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        # IMMEDIATE takes the write lock at once, so no later statement waits for it and fails.
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit the open transaction."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the open transaction, unless SQLite has done so itself (after a full disk)."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
