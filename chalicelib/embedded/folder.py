"""The data folder: the files in it, and the lock that keeps a second server out."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chalicelib.domain.errors import DataFolderError

LOCK_TIMEOUT_S = 3.0
"""How long to wait for the lock. The children of a killed server keep it for up to a second."""

_LOCK_POLL_S = 0.05
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600

_MAX_ADDRESS_BYTES = 100
"""A socket's address may have 104 bytes on macOS and 108 on Linux (``sun_path``)."""

_SOCKET_BACKLOG = 1024
"""Connections that may wait while the event loop is busy. Each thread of the API has one."""


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, unless it exists.

    Raises ``DataFolderError``.
    """
    try:
        # Made with its final mode: before a chmod, another user could open the file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, _FILE_MODE))
    except FileExistsError:
        return
    except OSError as error:
        raise DataFolderError(f"{path} cannot be made ({error.strerror})") from error


class DataFolder:
    """The folder of one store. It is made on first use, and readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "timers.db"
        self.socket = path / "writer.sock"
        self._lock = path / "lock"

    def prepare(self) -> None:
        """Make the folder. Raises ``DataFolderError`` when it cannot be written."""
        try:
            self.path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
            # A trial is needed: the mode does not show a read-only file system or a full disk.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise DataFolderError(
                f"the data folder {self.path} cannot be written ({error.strerror}); "
                "DATA_DIR=… names another"
            ) from error

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
        holds it.
        """
        self.prepare()
        make_private(self._lock)  # a process that may read the file may also lock it
        # The system releases this lock when the process ends, even after `kill -9`. A file whose
        # existence is the lock would keep the next server out.
        with self._lock.open("a+") as file:
            deadline = clock() + wait_s
            while not _try_lock(file.fileno()):
                if clock() >= deadline:
                    raise DataFolderError(
                        f"another server (pid {_holder(self._lock)}) works on {self.path}; "
                        "stop it, or name another folder with DATA_DIR=…"
                    )
                sleep(_LOCK_POLL_S)
            # The process id is for the message of a second server only.
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def listen(self) -> socket.socket:
        """Return a socket that listens where ``connect`` connects. The lock must be held."""
        # A killed server leaves its socket behind, and no address can be bound twice.
        with suppress(FileNotFoundError):
            self.socket.unlink()
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
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        try:
            with _short_address(self.socket) as address:
                connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection


def _holder(lock: Path) -> str:
    try:
        return lock.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


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
