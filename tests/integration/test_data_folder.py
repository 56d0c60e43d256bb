"""The data folder and other users: who may write it, and links in the place of its files."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import DataFolderError, StartupError, StoreFileError, Unavailable
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.database import open_reader, open_store
from chalicelib.embedded.folder import DataFolder, check_file, make_private

ANOTHER_UID = os.geteuid() + 1
KEY = ApiKey(id="a", tenant="acme", created_at=1, digest=b"\x01" * 32)

DATABASE_FILES = ["timers.db", "timers.db-wal", "timers.db-shm", "timers.db-journal"]
KEY_FILES = ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-journal"]


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data folder")
    folder.path.mkdir(0o700)
    return folder


def start(folder: DataFolder) -> None:
    """Do with the folder what a start of the server does."""
    with folder.locked(wait_s=0):
        make_private(folder.store)
        open_store(str(folder.store)).close()
        folder.listen().close()


def link(path: Path, target: Path) -> None:
    target.write_bytes(b"precious")
    path.symlink_to(target)


def dangling_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard_link(path: Path, target: Path) -> None:
    target.write_bytes(b"precious")
    path.hardlink_to(target)


def pipe(path: Path, _target: Path) -> None:
    os.mkfifo(path)


def folder_instead(path: Path, _target: Path) -> None:
    path.mkdir()


INSTEAD_OF_A_FILE = [link, dangling_link, hard_link, pipe, folder_instead]
Plant = Callable[[Path, Path], None]


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


# The folder


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o775, 0o707, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_refused(folder: DataFolder, mode: int) -> None:
    folder.path.chmod(mode)

    with pytest.raises(DataFolderError) as refusal:
        start(folder)

    assert f"data folder {folder.path} " in refusal.value.detail
    assert refusal.value.detail.endswith(f"chmod 700 {shlex.quote(str(folder.path))}")
    assert list(folder.path.iterdir()) == []
    folder.path.chmod(0o700)
    start(folder)


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o750, 0o755, 0o2755])
def test_a_folder_that_others_may_only_read_is_used(folder: DataFolder, mode: int) -> None:
    folder.path.chmod(mode)
    start(folder)
    start(folder)


def test_a_folder_of_another_user_is_refused(folder: DataFolder) -> None:
    theirs = DataFolder(folder.path, euid=ANOTHER_UID)
    with pytest.raises(DataFolderError, match=rf"another user \(uid {os.geteuid()}\)") as refusal:
        start(theirs)
    assert f"sudo chown -R {ANOTHER_UID} '{folder.path}'" in refusal.value.detail
    assert list(folder.path.iterdir()) == []


def test_a_folder_of_another_user_that_all_may_write_needs_both_cures(folder: DataFolder) -> None:
    folder.path.chmod(0o777)
    with pytest.raises(DataFolderError) as refusal:
        start(DataFolder(folder.path, euid=ANOTHER_UID))
    name = f"'{folder.path}'"
    assert f"sudo chown -R {ANOTHER_UID} {name}; chmod 700 {name}" in refusal.value.detail


def test_nobody_is_told_to_take_over_a_folder_that_all_users_share(folder: DataFolder) -> None:
    folder.path.chmod(0o1777)
    with pytest.raises(DataFolderError, match="DATA_DIR") as refusal:
        start(DataFolder(folder.path, euid=ANOTHER_UID))
    assert "chown" not in refusal.value.detail


def test_root_may_use_a_folder_of_any_user(folder: DataFolder) -> None:
    DataFolder(folder.path, euid=0).prepare()


def test_a_link_to_a_folder_is_used_like_the_folder(folder: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.path)
    start(DataFolder(tmp_path / "link"))
    start(DataFolder(tmp_path / "link"))
    folder.path.chmod(0o777)
    with pytest.raises(DataFolderError, match="chmod 700"):
        start(DataFolder(tmp_path / "link"))


def test_api_keys_are_kept_in_no_folder_that_others_may_write(folder: DataFolder) -> None:
    keys = SQLiteApiKeyStore(folder)
    keys.add(KEY)
    folder.path.chmod(0o777)
    with pytest.raises(DataFolderError, match="chmod 700"):
        keys.add(KEY)
    with pytest.raises(Unavailable, match="chmod 700"):
        keys.find(KEY.digest)


# The files


@pytest.mark.parametrize("name", ["lock", *DATABASE_FILES, *KEY_FILES])
@pytest.mark.parametrize("plant", INSTEAD_OF_A_FILE)
def test_a_start_opens_nothing_but_regular_files(
    folder: DataFolder, tmp_path: Path, name: str, plant: Plant
) -> None:
    target = tmp_path / "target"
    plant(folder.path / name, target)
    before = content(target)

    with pytest.raises(StartupError) as refusal:
        start(folder)

    assert f"{folder.path / name} cannot be opened: it is" in refusal.value.detail
    assert content(target) == before
    assert not folder.socket.exists()


@pytest.mark.parametrize("name", DATABASE_FILES)
@pytest.mark.parametrize("plant", INSTEAD_OF_A_FILE)
@pytest.mark.parametrize("opened", [open_store, open_reader])
def test_a_database_is_not_opened_through_a_link(
    folder: DataFolder,
    tmp_path: Path,
    name: str,
    plant: Plant,
    opened: Callable[[str], object],
) -> None:
    target = tmp_path / "target"
    plant(folder.path / name, target)
    before = content(target)
    with pytest.raises(StoreFileError, match="cannot be opened"):
        opened(str(folder.store))
    assert content(target) == before


@pytest.mark.parametrize("name", KEY_FILES)
@pytest.mark.parametrize("plant", INSTEAD_OF_A_FILE)
def test_keys_are_not_read_or_written_through_a_link(
    folder: DataFolder, tmp_path: Path, name: str, plant: Plant
) -> None:
    target = tmp_path / "target"
    if name != "keys.db":
        SQLiteApiKeyStore(folder).add(KEY)
    plant(folder.path / name, target)
    before = content(target)
    keys = SQLiteApiKeyStore(folder)
    for operation in (
        lambda: keys.add(KEY),
        lambda: keys.find(KEY.digest),
        keys.list,
        lambda: keys.revoke("a"),
    ):
        with pytest.raises(Unavailable, match="cannot be opened"):
            operation()
    assert content(target) == before


def test_a_file_of_another_user_is_refused(folder: DataFolder) -> None:
    make_private(folder.store)
    check_file(folder.store)
    with pytest.raises(StoreFileError, match=f"sudo chown {ANOTHER_UID}"):
        check_file(folder.store, euid=ANOTHER_UID)


@pytest.mark.parametrize("name", ["lock", "timers.db", "keys.db"])
def test_others_lose_the_right_to_write_a_file(folder: DataFolder, name: str) -> None:
    start(folder)
    (folder.path / name).touch()
    (folder.path / name).chmod(0o664)
    start(folder)
    assert stat.S_IMODE((folder.path / name).stat().st_mode) == 0o644


def test_a_server_that_was_killed_leaves_files_that_the_next_one_opens(folder: DataFolder) -> None:
    start(folder)
    with closing(open_store(str(folder.store))):  # so there are files of a write-ahead log
        assert (folder.path / "timers.db-wal").exists()
        with folder.locked(wait_s=0), closing(open_reader(str(folder.store))):
            pass


# The socket


@pytest.mark.parametrize("plant", [link, dangling_link, hard_link])
def test_a_link_in_the_place_of_the_socket_is_replaced(
    folder: DataFolder, tmp_path: Path, plant: Plant
) -> None:
    target = tmp_path / "target"
    plant(folder.socket, target)
    before = content(target)
    with closing(folder.listen()), closing(folder.connect(1)):
        assert folder.socket.is_socket()
        assert not folder.socket.is_symlink()
    assert content(target) == before


def test_a_folder_in_the_place_of_the_socket_is_named(folder: DataFolder) -> None:
    folder.socket.mkdir()
    with pytest.raises(DataFolderError, match=str(folder.socket)):
        folder.listen()


def test_no_link_is_followed_to_a_socket(folder: DataFolder, tmp_path: Path) -> None:
    other = DataFolder(tmp_path / "other")
    other.prepare()
    with closing(other.listen()):
        folder.socket.symlink_to(other.socket)
        with pytest.raises(OSError, match="symbolic links"):
            folder.connect(1)
