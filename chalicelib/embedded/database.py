"""The SQLite file: opening and migrating it.

SQLite's ``user_version`` holds the schema version, and its ``application_id`` marks our files.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chalicelib.domain.errors import StoreFileError, Unavailable
from chalicelib.embedded.folder import check_database
from chalicelib.embedded.migrations import MIGRATIONS

MEMORY = ":memory:"
APPLICATION_ID = 0x54494D52
"""``TIMR`` in ASCII."""

BUSY_TIMEOUT_S = 1.0
"""How long a statement waits for a lock that another connection holds."""

LOG_BYTES = 8 * 1024 * 1024
"""The size of the write-ahead log, which may grow beyond it for a while.

A commit into a file that need not grow takes half the time (measured: 0.17 ms instead of 0.37 ms).
"""

MIN_SQLITE = (3, 35)
"""The first version with RETURNING, which claims and ids need."""

_WRITER_CACHE_KIB = 8_192
_READER_CACHE_KIB = 256
"""Small, because every thread of the API has one. The page cache of the system serves all."""


def open_store(
    path: str,
    *,
    migrations: Sequence[str] = MIGRATIONS,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> sqlite3.Connection:
    """Open the store for the one process that writes it, and make or migrate it where needed.

    Raises ``StoreFileError`` when the file is damaged, foreign, or newer than this version.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise StoreFileError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
    try:
        with ExitStack() as undo:
            connection = _connect(path, busy_timeout_s, cache_kib=_WRITER_CACHE_KIB)
            undo.callback(connection.close)
            # Before anything is written: setting the journal mode writes to the file.
            _refuse_foreign(connection, path, len(migrations))
            # With a write-ahead log, the readers in the API's processes never block the writer.
            connection.execute("PRAGMA journal_mode=WAL")
            # An automatic checkpoint would stall a commit, so the writer does them (writer.py).
            connection.execute("PRAGMA wal_autocheckpoint=0")
            # A log that grew while a reader needed it is cut to this size when it is begun anew.
            connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            # On macOS only F_FULLFSYNC reaches the disk.
            connection.execute("PRAGMA fullfsync=1")
            _migrate(connection, migrations)
            undo.pop_all()  # nothing failed: leave the connection open
    except sqlite3.OperationalError as error:
        raise StoreFileError(f"the store {path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreFileError(
            f"the store {path} is damaged ({error}); restore it from a copy, or move it away"
        ) from error
    return connection


def open_reader(path: str) -> sqlite3.Connection:
    """Open a store that another process writes.

    Raises ``Unavailable`` if it cannot be opened, and ``StoreFileError`` if it is a link or not
    ours.
    """
    with unavailable_on_error():
        connection = _connect(path, BUSY_TIMEOUT_S, cache_kib=_READER_CACHE_KIB)
        connection.execute("PRAGMA query_only=1")
    return connection


@contextmanager
def without_waiting(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the statements inside wait for no lock of another connection."""
    (timeout_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout=0")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout={timeout_ms}")


@contextmanager
def unavailable_on_error() -> Iterator[None]:
    """Raise ``Unavailable`` when SQLite fails, for example because the disk is full."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"The store cannot do this now: {error}.") from error


def _connect(path: str, busy_timeout_s: float, *, cache_kib: int) -> sqlite3.Connection:
    if path != MEMORY:
        check_database(Path(path))
    # Transactions are begun by our own statements, not by the sqlite3 module. Commits may run on
    # another thread than the other statements, but never at the same time.
    connection = sqlite3.connect(
        path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA cache_size=-{cache_kib}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _refuse_foreign(connection: sqlite3.Connection, path: str, newest: int) -> None:
    """Raise ``StoreFileError``, before anything is written, unless the file is ours or empty."""
    application_id = _pragma(connection, "application_id")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (application_id or tables):
        raise StoreFileError(f"{path} is a SQLite file of another application")
    version = _pragma(connection, "user_version")
    if version > newest:
        raise StoreFileError(
            f"{path} was written by a newer version of Webhook Timers (format {version}, this one "
            f"reads up to {newest}); update, or name another folder with DATA_DIR=…"
        )


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    version = _pragma(connection, "user_version")
    for number, migration in enumerate(migrations[version:], start=version + 1):
        # The migration and its version are one transaction: a crash leaves the old format intact.
        connection.executescript(
            f"BEGIN IMMEDIATE; {migration} PRAGMA user_version={number}; "
            f"PRAGMA application_id={APPLICATION_ID}; COMMIT;"
        )
    # The identity is a part of every webhook-id. A copy of the file keeps it.
    if connection.execute("SELECT count(*) FROM store").fetchone() == (0,):
        connection.execute("INSERT INTO store VALUES (?)", (secrets.token_hex(8),))
