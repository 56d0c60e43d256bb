"""The data folder: its files, who may write them, and the lock that keeps a second server out."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chalicelib.domain.errors import DataFolderError, StoreFileError

LOCK_TIMEOUT_S = 3.0
"""How long to wait for the lock. The children of a killed server keep it for up to a second."""

_LOCK_POLL_S = 0.05
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")

_ANOTHER_FOLDER = "name another folder with DATA_DIR=…"

_MAX_PID_BYTES = 20

_MAX_ADDRESS_BYTES = 100
"""A socket's address may have 104 bytes on macOS and 108 on Linux (``sun_path``)."""

_SOCKET_BACKLOG = 1024
"""Connections that may wait while the event loop is busy. Each thread of the API has one."""


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, or check the file that exists.

    Raises ``DataFolderError`` if it cannot be made, and ``StoreFileError`` as ``check_file`` does.
    """
    try:
        # Made with its final mode: before a chmod, another user could open the file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, _FILE_MODE))
    except FileExistsError:
        check_file(path)
    except OSError as error:
        raise DataFolderError(f"{path} cannot be made ({error.strerror})") from error


def check_file(path: Path, euid: int | None = None) -> None:
    """Return if ``path`` is a regular file that only ``euid`` may write, or does not exist.

    ``euid`` is a user id, by default that of this process. Other users lose the right to write.
    Raises ``StoreFileError``: a link may lead to a file of another program, which would then be
    overwritten.
    """
    try:
        status = path.lstat()
    except OSError:
        return  # there is no file, or opening it fails and says why
    euid = os.geteuid() if euid is None else euid
    name = shlex.quote(str(path))
    if stat.S_ISLNK(status.st_mode):
        raise StoreFileError(f"{path} cannot be opened: it is a symbolic link; rm {name}")
    if not stat.S_ISREG(status.st_mode):
        raise StoreFileError(f"{path} cannot be opened: it is no regular file; move it away")
    if status.st_nlink > 1:
        raise StoreFileError(
            f"{path} cannot be opened: it is a hard link, which has another name; move it away"
        )
    if _belongs_to_another(status, euid):
        raise StoreFileError(
            f"{path} cannot be opened: it belongs to another user (uid {status.st_uid}); move it "
            f"away, or if it is yours: sudo chown {euid} {name}"
        )
    if status.st_mode & _WRITABLE_BY_OTHERS:
        _make_unwritable_by_others(path, status.st_mode)


def _make_unwritable_by_others(path: Path, mode: int) -> None:
    # The first versions let SQLite make the files, so the umask decided who may write them.
    try:
        path.chmod(stat.S_IMODE(mode) & ~_WRITABLE_BY_OTHERS)
    except FileNotFoundError:
        return  # SQLite removes its journal after each write
    except OSError as error:
        raise StoreFileError(
            f"{path} cannot be opened: other users may write it; chmod 600 {shlex.quote(str(path))}"
        ) from error


def check_database(path: Path) -> None:
    """Check the files of a SQLite database, as ``check_file`` does.

    SQLite itself follows a link to a database. It is not opened for this check: closing it would
    release the locks that other threads hold on it (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    for suffix in _DATABASE_SUFFIXES:
        check_file(path.with_name(path.name + suffix))


class DataFolder:
    """The folder of one store. It is made on first use, and readable by its owner only."""

    def __init__(self, path: Path, *, euid: int | None = None) -> None:
        """``euid`` is the user who must own the folder, by default that of this process."""
        self.path = path
        self.store = path / "timers.db"
        self.keys = path / "keys.db"
        self.socket = path / "writer.sock"
        self._lock = path / "lock"
        self._euid = os.geteuid() if euid is None else euid

    def prepare(self) -> None:
        """Make the folder. Raises ``DataFolderError`` when it cannot be written or is not safe."""
        try:
            self.path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
            self.check()
            # A trial is needed: the mode does not show a read-only file system or a full disk.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise DataFolderError(
                f"the data folder {self.path} cannot be written ({error.strerror}); "
                "DATA_DIR=… names another"
            ) from error

    def check(self) -> None:
        """Raise ``DataFolderError`` unless the folder is ours and nobody else may write it.

        PostgreSQL asks the same of its data folder. A user who may write it can replace the
        store, or put a link there to a file that the server then overwrites. Raises ``OSError`` if
        there is no folder.
        """
        status = self.path.stat()  # follows links: the path of the folder may be one
        mode = stat.S_IMODE(status.st_mode)
        name = shlex.quote(str(self.path))
        private = f"chmod 700 {name}"
        if _belongs_to_another(status, self._euid):
            cure = f", or if it is yours: sudo chown -R {self._euid} {name}"
            if mode & _WRITABLE_BY_OTHERS:
                # Nobody should be told to take over a folder that all users share, such as /tmp.
                cure = "" if mode & stat.S_ISVTX else f"{cure}; {private}"
            raise DataFolderError(
                f"the data folder {self.path} belongs to another user (uid {status.st_uid}); "
                f"{_ANOTHER_FOLDER}{cure}"
            )
        if mode & _WRITABLE_BY_OTHERS:
            raise DataFolderError(
                f"other users may write the data folder {self.path} (mode {mode:o}); "
                f"{_ANOTHER_FOLDER}, or if nobody else uses it: {private}"
            )

    @contextmanager
    def locked(
        self,
        *,
        wait_s: float = LOCK_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[None]:
        """Hold the lock for as long as the context is open.

        Wait up to ``wait_s`` seconds for it. Raises ``DataFolderError`` when another server still
        holds it or the folder cannot be used, and ``StoreFileError`` when a file in it is not safe.
        """
        self.prepare()
        self._check_files()
        # The system releases this lock when the process ends, even after `kill -9`. A file whose
        # existence is the lock would keep the next server out.
        with _open_lock(self._lock) as file:
            deadline = clock() + wait_s
            while not _try_lock(file.fileno()):
                if clock() >= deadline:
                    raise DataFolderError(
                        f"another server (pid {_holder(file.fileno())}) works on {self.path}; "
                        f"stop it, or {_ANOTHER_FOLDER}"
                    )
                sleep(_LOCK_POLL_S)
            # The process id is for the message of a second server only.
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def _check_files(self) -> None:
        """Raise ``StoreFileError`` if a file in the folder is a link, or not ours."""
        make_private(self._lock)  # a process that may read the file may also lock it
        for database in (self.store, self.keys):
            check_database(database)

    def listen(self) -> socket.socket:
        """Return a socket that listens where ``connect`` connects. The lock must be held."""
        # A killed server leaves its socket behind, and no address can be bound twice. A link is
        # removed too, and not followed.
        try:
            self.socket.unlink(missing_ok=True)
        except OSError as error:
            raise DataFolderError(
                f"{self.socket} cannot be removed ({error.strerror}); move it away"
            ) from error
        listener = socket.socket(socket.AF_UNIX)
        with _short_address(self.socket) as address:
            listener.bind(address)
        # A process that can write to the socket acts for every tenant, and other users may enter a
        # folder that was not made here. Nobody can connect before `listen`.
        self.socket.chmod(_FILE_MODE)
        listener.listen(_SOCKET_BACKLOG)
        return listener

    def connect(self, timeout_s: float) -> socket.socket:
        """Return a connection to the process that holds the folder. Raises ``OSError``.

        Every later call on the connection fails after ``timeout_s`` seconds.
        """
        if stat.S_ISLNK(self.socket.lstat().st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self.socket))
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        try:
            with _short_address(self.socket) as address:
                connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection


def _belongs_to_another(status: os.stat_result, euid: int) -> bool:
    # Root may use every folder: in a container it often has a volume of the host's user.
    return euid not in (0, status.st_uid)


def _open_lock(path: Path) -> IO[str]:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+")
    except OSError as error:
        raise DataFolderError(f"{path} cannot be opened ({error.strerror})") from error


def _holder(lock: int) -> str:
    """Return the process id in the lock file, which is open as ``lock``."""
    content = os.pread(lock, _MAX_PID_BYTES, 0)
    return content.decode() if content.isdigit() else "unknown"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _short_address(path: Path) -> Iterator[str]:
    """Yield an address of the socket ``path`` that is not too long: through a link if need be."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as shortcut:
        # The link is needed only until bind or connect returns.
        link = Path(shortcut) / "d"
        link.symlink_to(path.parent)
        yield str(link / path.name)
