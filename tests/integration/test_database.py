"""The file of the embedded engine and its folder: versions, damage, locks and permissions."""

from __future__ import annotations

import os
import resource
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from chalicelib.domain.errors import DataFolderError, StoreFileError, Unavailable
from chalicelib.domain.timer import NO_OPTIONS, NewTimer
from chalicelib.embedded.database import APPLICATION_ID, open_reader, open_store
from chalicelib.embedded.folder import DataFolder, make_private
from chalicelib.embedded.migrations import MIGRATIONS
from chalicelib.embedded.store import SQLiteTimerStore
from tests.support.factories import settled

NEW = NewTimer(tenant="default", url="http://h", created_at=0, due_at=1_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "timers.db"


def create(connection: sqlite3.Connection) -> int:
    return SQLiteTimerStore(connection).create(NEW).id


def pragma(connection: sqlite3.Connection, name: str) -> object:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return value


def schema(connection: sqlite3.Connection) -> list[tuple[str]]:
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return rows.fetchall()


def assert_refused(file: Path, because: str) -> None:
    """Check that ``file`` is not opened as a store, and is left as it was."""
    before = file.read_bytes()
    with pytest.raises(StoreFileError, match=because) as refusal:
        open_store(str(file))
    assert str(file) in refusal.value.detail
    assert file.read_bytes() == before


# The file


def test_a_store_is_made_from_nothing(file: Path) -> None:
    with closing(open_store(str(file))) as connection:
        assert pragma(connection, "user_version") == len(MIGRATIONS)
        assert pragma(connection, "application_id") == APPLICATION_ID
        assert pragma(connection, "journal_mode") == "wal"
        assert create(connection) == 1


def test_an_empty_file_becomes_a_store(file: Path) -> None:
    file.touch()
    with closing(open_store(str(file))) as connection:
        assert create(connection) == 1


def test_a_store_keeps_its_timers_and_its_identity(file: Path) -> None:
    with closing(open_store(str(file))) as connection:
        identity = SQLiteTimerStore(connection).identity()
        create(connection)
    with closing(open_store(str(file))) as connection:
        assert SQLiteTimerStore(connection).identity() == identity
        assert create(connection) == 2


def test_every_store_has_an_identity_of_its_own(tmp_path: Path) -> None:
    identities = set()
    for name in ("a", "b", "c"):
        with closing(open_store(str(tmp_path / name))) as connection:
            identities.add(SQLiteTimerStore(connection).identity())
    assert len(identities) == 3


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_store_of_any_older_version_is_migrated(tmp_path: Path, version: int) -> None:
    open_store(str(tmp_path / "old"), migrations=MIGRATIONS[:version]).close()
    with (
        closing(open_store(str(tmp_path / "old"))) as migrated,
        closing(open_store(str(tmp_path / "new"))) as fresh,
    ):
        assert schema(migrated) == schema(fresh)
        assert pragma(migrated, "user_version") == len(MIGRATIONS)


def test_a_timer_of_the_first_store_version_fires_under_the_present_one(file: Path) -> None:
    with closing(open_store(str(file), migrations=MIGRATIONS[:1])) as connection:
        connection.execute(
            "INSERT INTO timers (tenant, id, url, status, created_at, due_at, version, "
            "attempts, next_attempt_at) "
            "VALUES ('default', 1, 'http://h', 'pending', 1, 2, 1, 0, 2)"
        )
    with closing(open_store(str(file))) as connection:
        store = SQLiteTimerStore(connection)
        timer = store.get("default", 1)
        assert (timer.log, timer.options) == ((), NO_OPTIONS)
        assert settled(store, timer).log


def test_a_failed_migration_leaves_the_old_version_unchanged(file: Path) -> None:
    with closing(open_store(str(file))) as connection:
        create(connection)
        before = schema(connection)
    half = "CREATE TABLE half_way (x); CREATE TABLE timers (x);"
    with pytest.raises(StoreFileError, match="already exists"):
        open_store(str(file), migrations=(*MIGRATIONS, half))
    with closing(open_store(str(file))) as connection:
        assert schema(connection) == before
        assert create(connection) == 2


def test_a_store_of_a_newer_version_is_refused(file: Path) -> None:
    with closing(open_store(str(file))) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    assert_refused(file, "newer version of Webhook Timers")


@pytest.mark.parametrize("application_id", [0, 1, -1])
def test_a_file_of_another_application_is_refused(file: Path, application_id: int) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE photos (id)")
        connection.execute(f"PRAGMA application_id={application_id}")
        connection.commit()
    assert_refused(file, "another application")


def test_a_file_of_another_application_is_not_taken_for_a_newer_store(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE photos (id)")
        connection.execute("PRAGMA user_version=99")
        connection.commit()
    assert_refused(file, "another application")


@pytest.mark.parametrize(
    "content",
    [b"not a database" * 1_000, b"\x00" * 5_000, b"SQLite format 3\x00" + b"\xff" * 5_000],
    ids=["text", "zeros", "only a header"],
)
def test_a_file_that_is_not_sqlite_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert_refused(file, "damaged")


def test_the_refusal_of_a_damaged_store_says_what_to_do(file: Path) -> None:
    with closing(open_store(str(file))) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    with file.open("r+b") as damaged:
        damaged.seek(100)
        damaged.write(b"\xff" * 3_000)
    assert_refused(file, "restore it from a copy, or move it away")


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreFileError, match="cannot be opened"):
        open_store(str(tmp_path / "missing" / "timers.db"))
    with pytest.raises(StoreFileError, match="cannot be opened"):
        open_store(str(tmp_path))


def test_a_store_that_another_program_locks_is_refused(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreFileError, match="locked"):
            open_store(str(file), busy_timeout_s=0.01)


# Whether it can be written


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """Make the disk as good as full: the system refuses to write what is further behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_check_fails_if_the_store_cannot_be_written(file: Path) -> None:
    with closing(open_store(str(file))) as connection:
        store = SQLiteTimerStore(connection)
        with (
            no_file_grows_beyond(Path(f"{file}-wal").stat().st_size),
            pytest.raises(Unavailable, match="store cannot"),
        ):
            store.check()
        store.check()
        assert create(connection) == 1


# Reading beside the writer


def test_a_reader_sees_committed_writes(file: Path) -> None:
    with (
        closing(open_store(str(file))) as writer,
        closing(open_reader(str(file))) as reader,
    ):
        create(writer)
        assert SQLiteTimerStore(reader).get("default", 1).due_at == 1_000


def test_a_reader_cannot_write(file: Path) -> None:
    open_store(str(file)).close()
    with closing(open_reader(str(file))) as reader, pytest.raises(Unavailable, match="readonly"):
        create(reader)


def test_there_is_no_reader_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_reader(str(tmp_path / "missing" / "timers.db"))


# The folder


class Clock:
    """A clock that moves only while someone sleeps by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_folder_is_made_with_its_parents_for_its_owner_alone(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "a" / "b")
    folder.prepare()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert list(folder.path.iterdir()) == []
    folder.prepare()


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataFolderError, match=rf"{path} cannot be written .*DATA_DIR"):
            DataFolder(path).prepare()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataFolderError, match="Permission denied"):
            DataFolder(tmp_path).prepare()
        with pytest.raises(DataFolderError, match="Permission denied"):
            DataFolder(tmp_path / "below").prepare()
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    clock = Clock()
    second = DataFolder(tmp_path)
    with (
        DataFolder(tmp_path).locked(),
        pytest.raises(DataFolderError, match=rf"another server \(pid {os.getpid()}\)"),
        second.locked(wait_s=3, clock=clock, sleep=clock.sleep),
    ):
        pytest.fail("two hold one folder")
    assert 3 <= clock.now < 4


def test_a_folder_that_becomes_free_can_be_taken(tmp_path: Path) -> None:
    held = DataFolder(tmp_path).locked()
    held.__enter__()
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 1:
            held.__exit__(None, None, None)

    with DataFolder(tmp_path).locked(wait_s=3, clock=clock, sleep=sleep):
        assert 1 < clock.now < 2


def test_a_folder_is_free_after_its_holder_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), DataFolder(tmp_path).locked():
        raise ZeroDivisionError
    with DataFolder(tmp_path).locked(wait_s=0):
        pass


def test_a_lock_is_its_owners_alone_whoever_may_enter_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with DataFolder(tmp_path).locked(wait_s=0):
        assert (tmp_path / "lock").stat().st_mode & 0o077 == 0


def test_an_empty_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xff\xfe rubbish")
    with DataFolder(tmp_path).locked(wait_s=0):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


# The socket


@pytest.fixture(params=[1, 80, 200], ids=["short path", "long path", "longest path"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / ("f" * request.param))
    folder.prepare()
    return folder


def greet(folder: DataFolder, listener: socket.socket) -> None:
    with closing(folder.connect(1)) as client:
        server, _ = listener.accept()
        with closing(server):
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"


def test_a_folder_of_any_length_has_its_socket(folder: DataFolder) -> None:
    with closing(folder.listen()) as listener:
        greet(folder, listener)
        greet(folder, listener)
    assert folder.socket.exists()


def test_a_socket_is_its_owners_alone_whoever_may_enter_the_folder(folder: DataFolder) -> None:
    folder.path.chmod(0o755)
    with folder.listen():
        assert folder.socket.stat().st_mode & 0o077 == 0


def test_a_store_is_its_owners_alone_and_stays_as_it_is(folder: DataFolder) -> None:
    make_private(folder.store)
    assert folder.store.stat().st_mode & 0o077 == 0
    folder.store.write_bytes(b"timers")
    make_private(folder.store)
    assert folder.store.read_bytes() == b"timers"
    with pytest.raises(DataFolderError, match="cannot be made"):
        make_private(folder.path / "nowhere" / "file")


def test_a_socket_left_behind_by_a_killed_process_is_replaced(folder: DataFolder) -> None:
    folder.listen().close()
    with closing(folder.listen()) as listener:
        greet(folder, listener)


def test_connecting_fails_if_no_process_listens(folder: DataFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.connect(1)
    folder.listen().close()
    with pytest.raises(ConnectionRefusedError):
        folder.connect(1)
