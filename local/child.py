"""A child process, which runs one module of this project."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Child:
    """A process that can be started again after its end.

    ``stop`` sends SIGTERM every ``ask_again_s`` seconds until the process ends. The process has the
    descriptors that it ``inherits``.
    """

    module: str
    arguments: tuple[str, ...] = ()
    ask_again_s: float = 1.0
    inherits: tuple[int, ...] = ()
    started_at: float = field(default=0.0, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process.

        Its first argument is this process's id, so that it can watch its parent.
        """
        self.started_at = time.monotonic()
        command = [sys.executable, "-m", self.module, str(os.getpid()), *self.arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=self.inherits)

    def exit_code(self) -> int | None:
        """Return the exit code, None while the process runs or before its first start."""
        return self.process.poll() if self.process else None

    def ask(self) -> None:
        """Ask the process to end, without waiting for it."""
        if self.exit_code() is None and self.process is not None:
            self.process.terminate()

    def stop(self, patience_s: float) -> bool:
        """Ask the process to end; return whether it did.

        After ``patience_s`` seconds kill it and return False.
        """
        if self.process is None or self.process.poll() is not None:
            return True
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            # One signal may not be enough: Python can miss the first
            # (https://github.com/python/cpython/issues/98140).
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(min(self.ask_again_s, left_s))
                return True
        self.process.kill()
        self.process.wait()
        return False
