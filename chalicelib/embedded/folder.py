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

LOCK_WAIT_S = 3.0
"""How long to wait for the lock: the children of a killed server keep it for up to a second."""

_LOCK_POLL_S = 0.05
_PRIVATE = 0o700
_PRIVATE_FILE = 0o600


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, unless it exists.

    Raises ``DataFolderError``.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, _PRIVATE_FILE))
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
            self.path.mkdir(_PRIVATE, parents=True, exist_ok=True)
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
        wait_s: float = LOCK_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[None]:
        """Hold the lock. The system releases it when the process ends, even by ``kill -9``.

        Raises ``DataFolderError`` when another server holds it.
        """
        self.prepare()
        make_private(self._lock)  # a process that may read the file may also lock it
        with self._lock.open("a+") as file:
            deadline = clock() + wait_s
            while not _try_lock(file.fileno()):
                if clock() >= deadline:
                    raise DataFolderError(
                        f"another server (pid {_holder(self._lock)}) works on {self.path}; "
                        "stop it, or name another folder with DATA_DIR=…"
                    )
                sleep(_LOCK_POLL_S)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def listen(self) -> socket.socket:
        """Return a socket that listens where ``connect`` connects. The lock must be held."""
        with suppress(FileNotFoundError):
            self.socket.unlink()
        listener = socket.socket(socket.AF_UNIX)
        with _short(self.socket) as address:
            listener.bind(address)
        # A process that can write to the socket acts for every tenant, and other users may be able
        # to enter the folder.
        self.socket.chmod(_PRIVATE_FILE)
        listener.listen(1024)
        return listener

    def connect(self, timeout_s: float) -> socket.socket:
        """Return a connection to the process that holds the folder. Raises ``OSError``."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        try:
            with _short(self.socket) as address:
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


_MAX_ADDRESS_BYTES = 100


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield an address for the socket ``path`` that fits into the 104 bytes macOS allows."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as shortcut:
        link = Path(shortcut) / "d"
        link.symlink_to(path.parent)
        yield str(link / path.name)
