"""The process of the API, which the supervisor starts as ``python -m local.server``.

It listens, starts the workers, and restarts those that end. The workers serve the requests.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType

from chalicelib.settings import load
from local.child import Child
from local.listener import listen
from local.parent import exit_with

STOP_WORKERS_S = 3.5
"""How long workers may take to end, requests in hand 3 s of it. Then they are killed."""

_POLL_S = 0.05
_MIN_RESTART_S = 0.5
"""The least time between two starts of a worker, for one that fails at once."""


class Workers:
    """Runs the workers until SIGTERM."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        """There is one worker for each of ``listeners``, which inherits it."""
        # Kept open: connections wait in it while the worker is restarted.
        self._listeners = listeners
        self._workers = [
            Child("local.worker", (str(listener.fileno()),), inherits=(listener.fileno(),))
            for listener in listeners
        ]
        self._stopping = False

    def run(self) -> None:
        """Start the workers, and restart those that end."""
        signal.signal(signal.SIGTERM, self._on_signal)
        for worker in self._workers:
            worker.start()
        # Polled, because subprocess offers nothing to wait on, and only Linux has os.pidfd_open.
        while not self._stopping:
            for worker in self._workers:
                code = worker.exit_code()
                if code is not None and self._is_old(worker) and not self._stopping:
                    print(f"webhook-timers: an API worker ended ({code})", file=sys.stderr)
                    worker.start()
            time.sleep(_POLL_S)
        for listener in self._listeners:
            listener.close()
        self._stop()

    def _is_old(self, worker: Child) -> bool:
        return time.monotonic() - worker.started_at >= _MIN_RESTART_S

    def _stop(self) -> None:
        deadline = time.monotonic() + STOP_WORKERS_S
        for worker in self._workers:
            worker.ask()
        for worker in self._workers:
            worker.stop(deadline - time.monotonic())

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def main() -> None:
    """Serve until SIGTERM."""
    # Ctrl-C signals every process of the terminal, but the supervisor stops this one. Blocked, not
    # ignored: the workers inherit it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    exit_with(int(sys.argv[1]))
    settings = load()
    Workers(listen(settings.host, settings.port, settings.workers)).run()


if __name__ == "__main__":
    main()
