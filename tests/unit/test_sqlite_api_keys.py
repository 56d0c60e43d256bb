"""The store of API keys in a file, beyond the contract: files, locks and processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import DataFolderError, StoreFileError, Unavailable
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from tests.support.clock import START

KEY = ApiKey(id="a", tenant="acme", created_at=START, digest=bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(folder: Path) -> SQLiteApiKeyStore:
    return SQLiteApiKeyStore(DataFolder(folder))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_unavailable(store: SQLiteApiKeyStore, error: type[Exception] = Unavailable) -> None:
    for operation in (
        lambda: store.find(KEY.digest),
        lambda: store.add(KEY),
        store.list,
        lambda: store.revoke(KEY.id),
    ):
        with pytest.raises(error, match=r"keys\.db|store cannot"):
            operation()


def test_reading_makes_no_file(store: SQLiteApiKeyStore, folder: Path) -> None:
    store.find(KEY.digest)
    store.list()
    assert not folder.exists()


def test_only_its_owner_may_read_the_file(store: SQLiteApiKeyStore, folder: Path) -> None:
    before = os.umask(0)
    try:
        store.add(KEY)
    finally:
        os.umask(before)
    assert mode(folder / "keys.db") == 0o600
    assert mode(folder) == 0o700
    assert [path.name for path in folder.iterdir()] == ["keys.db"]


def test_another_process_finds_what_was_added_and_revoked(
    store: SQLiteApiKeyStore, folder: Path
) -> None:
    other = SQLiteApiKeyStore(DataFolder(folder))
    assert other.find(KEY.digest) is None
    store.add(KEY)
    assert other.find(KEY.digest) == KEY
    store.revoke("a")
    assert other.find(KEY.digest) is None


def test_the_same_key_is_not_added_twice(store: SQLiteApiKeyStore) -> None:
    store.add(KEY)
    with pytest.raises(Unavailable):
        store.add(KEY)
    assert list(store.list()) == [KEY]


def test_while_another_process_writes_a_look_up_waits_and_then_gives_up(
    folder: Path,
) -> None:
    store = SQLiteApiKeyStore(DataFolder(folder), busy_timeout_s=0.01)
    store.add(KEY)
    with closing(sqlite3.connect(folder / "keys.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert_unavailable(store)
    assert store.find(KEY.digest) == KEY


def test_a_damaged_file_makes_every_operation_unavailable(
    store: SQLiteApiKeyStore, folder: Path
) -> None:
    folder.mkdir()
    (folder / "keys.db").write_bytes(b"\xff" * 8192)
    assert_unavailable(store)


def test_a_file_that_cannot_be_opened_makes_every_operation_unavailable(
    store: SQLiteApiKeyStore, folder: Path
) -> None:
    (folder / "keys.db").mkdir(parents=True)  # root may read anything that is a file
    assert_unavailable(store)


@pytest.mark.parametrize("pragma", ["user_version=99", "application_id=7"])
def test_a_newer_or_foreign_file_is_refused_and_left_as_it_is(
    store: SQLiteApiKeyStore, folder: Path, pragma: str
) -> None:
    store.add(KEY)
    with closing(sqlite3.connect(folder / "keys.db")) as connection:
        connection.execute(f"PRAGMA {pragma}")
    before = (folder / "keys.db").read_bytes()
    assert_unavailable(store, StoreFileError)
    assert (folder / "keys.db").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="DATA_DIR"):
        SQLiteApiKeyStore(DataFolder(tmp_path / "file" / "data")).add(KEY)


def test_a_file_that_is_removed_meanwhile_is_not_made_by_a_look_up(
    folder: Path,
) -> None:
    class RacingStore(SQLiteApiKeyStore):
        """Another process removes the file after the check."""

        def _check_file(self, *, make: bool) -> None:
            super()._check_file(make=make)
            (folder / "keys.db").unlink()

    SQLiteApiKeyStore(DataFolder(folder)).add(KEY)
    store = RacingStore(DataFolder(folder))
    with pytest.raises(Unavailable):
        store.find(KEY.digest)
    assert list(folder.iterdir()) == []


def test_the_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "d?a=t#a %41 é"
    SQLiteApiKeyStore(DataFolder(folder)).add(KEY)
    assert SQLiteApiKeyStore(DataFolder(folder)).find(KEY.digest) == KEY
    assert [path.name for path in folder.iterdir()] == ["keys.db"]


def test_looking_up_a_key_leaves_other_connections_their_locks(
    store: SQLiteApiKeyStore, folder: Path
) -> None:
    store.add(KEY)
    path = folder / "keys.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        store.find(KEY.digest)
        assert "locked" in another_process_writes(path)
        held.execute("ROLLBACK")
    assert another_process_writes(path) == ""


def another_process_writes(path: Path) -> str:
    """Return the error of another process that writes, empty if it can.

    Locks do not count within one process.
    """
    code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr
