"""One call while it is in flight: its deadline, its connection and its outcome.

The delivering thread and the sending thread share it. The package's docstring describes both.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.response_head import ResponseHead
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.webhook import Call, Outcome


class InFlightCall:
    """A call that is being sent. Its deadline counts from its creation."""

    def __init__(self, call: Call, guard: Guard, deadline_s: float) -> None:
        self.call = call
        self.guard = guard
        self.deadline_s = deadline_s
        self.connection_reused = False
        """Whether the call uses a connection that another call has used before."""
        self.response_began = False
        """Whether the receiver has sent any byte of a response."""
        self.head: ResponseHead | None = None
        """The head of the final response."""
        self.excerpt: str | None = None
        """The beginning of a failed response's body, as far as it has come."""
        self._expires_at = time.monotonic() + deadline_s
        self._status: int | None = None
        self._outcome: Outcome | None = None
        self._unavailable: Unavailable | None = None
        self._has_outcome = threading.Event()
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._cancelled = False

    @property
    def target(self) -> str:
        """The path and query of the URL. They are sent byte for byte as they were prepared."""
        parts = urlsplit(self.call.url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def remaining_s(self) -> float:
        """Return the seconds until the deadline. Raises ``TimeoutError`` if it has passed."""
        remaining = self._expires_at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def conclude(self, outcome: Outcome) -> Outcome:
        """Set the outcome unless there is one already. Return the first one that was set."""
        # Both threads may conclude at the deadline: one with a timeout, one with a late response.
        with self._lock:
            self._outcome = self._outcome or outcome
        self._has_outcome.set()
        return self._outcome

    def note_status(self, status: int) -> None:
        """Note the status of the final status line, which stands if the rest does not come."""
        self._status = status

    def conclude_early(self, failure: str) -> Outcome:
        """Set the outcome of a call that has failed, unless a status had come before."""
        if self._status is not None:
            return self.conclude(Outcome(status=self._status))
        return self.conclude(Outcome(error=failure))

    def abandon(self, reason: Unavailable) -> None:
        """End a call that this machine could not make. It has no outcome."""
        self._unavailable = reason
        self._has_outcome.set()

    def wait_for_outcome(self) -> bool:
        """Wait for the outcome, up to the deadline. Return whether there is one.

        Raises ``Unavailable`` if the call was abandoned.
        """
        over = self._has_outcome.wait(self.deadline_s)
        if self._unavailable is not None:
            raise self._unavailable
        return over

    def attach(self, connection: socket.socket) -> None:
        """Let ``cancel`` reach this connection. Raises ``TimeoutError`` after ``cancel``."""
        with self._lock:
            if self._cancelled:
                raise TimeoutError
            self._close_handle()
            # Duplicates the file descriptor, as a plain socket even for an SSLSocket. The package's
            # docstring says why.
            self._handle = socket.fromfd(connection.fileno(), connection.family, connection.type)

    def detach(self) -> None:
        """Keep ``cancel`` from the connection: other calls may use it from now on."""
        with self._lock:
            self._close_handle()

    def cancel(self) -> None:
        """End the connection now, even while the sending thread uses it.

        If the call has no connection yet, ``attach`` will raise.
        """
        with self._lock:
            self._cancelled = True
            if self._handle is not None:
                # Unlike a close, a shutdown ends the read or write that blocks the other thread.
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)

    def _close_handle(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None
