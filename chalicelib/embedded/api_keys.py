"""The API keys of the embedded engine, in a small SQLite file of their own.

A command can change this file while the server runs; only the dispatcher writes timers.db. Keys
change rarely and look-ups are cached, so every call opens the file anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import KeyNotFound, StartupError, StoreFileError, Unavailable
from chalicelib.embedded.database import BUSY_TIMEOUT_S, unavailable_on_error
from chalicelib.embedded.folder import DataFolder, check_database, make_private

APPLICATION_ID = 0x54494D4B
"""``TIMK`` in ASCII. It differs from that of timers.db, so that neither is opened as the other."""

FORMAT = 1
_SCHEMA = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        digest BLOB NOT NULL UNIQUE
    ) WITHOUT ROWID;
    PRAGMA application_id={APPLICATION_ID};
    PRAGMA user_version={FORMAT};
    COMMIT;
"""


class SQLiteApiKeyStore:
    """API keys in a file that only its owner may read. Many threads and processes may use it."""

    def __init__(self, folder: DataFolder, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """``busy_timeout_s`` is how long a call waits for another process that writes."""
        self._folder = folder
        self._busy_timeout_s = busy_timeout_s
        self._path = folder.keys

    def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with the SHA-256 ``digest``, None if there is none."""
        found = self._read("SELECT * FROM keys WHERE digest = ?", digest)
        return found[0] if found else None

    def add(self, key: ApiKey) -> None:
        """Store a new key durably, and make the file if it is missing."""
        self._folder.prepare()
        with self._opened(make=True) as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?)",
                (key.id, key.tenant, key.created_at, key.digest),
            )

    def list(self) -> Sequence[ApiKey]:
        """Return every key, in no order."""
        return self._read("SELECT * FROM keys")

    def revoke(self, key_id: str) -> ApiKey:
        """Remove a key durably and return it as it was. Raises ``KeyNotFound``."""
        try:
            with self._opened() as connection:
                row = connection.execute(
                    "DELETE FROM keys WHERE id = ? RETURNING *", (key_id,)
                ).fetchone()
        except FileNotFoundError:  # no key was ever made
            row = None
        if row is None:
            raise KeyNotFound(f"There is no key {key_id[:30]!r}.")
        return _key(row)

    def _read(self, statement: str, *values: object) -> Sequence[ApiKey]:
        try:
            with self._opened() as connection:
                return [_key(row) for row in connection.execute(statement, values)]
        except FileNotFoundError:
            return []

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection. Raises ``FileNotFoundError`` unless asked to ``make`` the file."""
        self._check_file(make=make)
        with unavailable_on_error(), closing(self._connect()) as connection:
            # On macOS only F_FULLFSYNC reaches the disk.
            connection.execute("PRAGMA fullfsync=1")
            self._migrate(connection)
            yield connection

    def _check_file(self, *, make: bool) -> None:
        """Return if the file exists and may be used. With ``make``, make a missing file first.

        SQLite would make it readable by every user, and would follow a link. The file is not opened
        for this check: closing it would release the locks that other threads hold on it
        (https://sqlite.org/howtocorrupt.html, 2.2).
        """
        try:
            if make:
                make_private(self._path)
            elif not os.path.lexists(self._path):
                raise FileNotFoundError(self._path)
            self._folder.check()
            check_database(self._path)
        except StartupError as error:
            raise Unavailable(error.detail) from error
        if not os.access(self._path, os.R_OK | os.W_OK):
            raise Unavailable(f"{self._path} cannot be used (no permission).")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",  # does not make the file if it is gone by now
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # autocommit: each statement is a transaction of its own
        )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if owner not in (0, APPLICATION_ID) or version > FORMAT:
            raise StoreFileError(f"{self._path} holds no keys, or those of a newer version")
        if version < FORMAT:
            connection.executescript(_SCHEMA)


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, tenant, created_at, digest = row
    return ApiKey(id=key_id, tenant=tenant, created_at=created_at, digest=digest)
