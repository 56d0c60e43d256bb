"""Why a call got no response, and the texts of these failures in attempt records.

Both senders map the errors of their libraries to these failures, so the same failure has the same
text on both engines.
"""

from __future__ import annotations

import enum
import errno
import os

from chalicelib.domain.response import MAX_RESPONSE_BYTES, ResponseTooLong
from chalicelib.domain.response_head import NotHttp
from chalicelib.domain.ssrf_guard import ForbiddenTarget

MAX_FAILURE_CHARACTERS = 200
"""Characters kept of a failure's text. Some details contain text of the receiver."""


NO_FILES = "The system gives this process no more files."
"""The text of ``Unavailable`` when ``lacks_files``."""


class InvalidUrl(ValueError):
    """A sender got a URL that is not canonical: nothing was sent."""


class Failure(enum.Enum):
    """Why there was no response."""

    INVALID_URL = enum.auto()
    TIMED_OUT = enum.auto()
    FORBIDDEN_TARGET = enum.auto()
    HOST_NOT_FOUND = enum.auto()
    TLS_FAILED = enum.auto()
    NOT_HTTP = enum.auto()
    CLOSED_WITHOUT_RESPONSE = enum.auto()
    RESPONSE_TOO_LONG = enum.auto()
    SYSTEM_ERROR = enum.auto()
    UNEXPECTED = enum.auto()

    def text(self, detail: object = "") -> str:
        """Return the text of this failure, with ``detail`` where the text has a place for it."""
        return _TEXTS[self].format(detail)[:MAX_FAILURE_CHARACTERS]


# Clients may match on these texts, so they stay as they are.
_TEXTS = {
    Failure.INVALID_URL: "not a URL that can be called",
    Failure.TIMED_OUT: "timed out after {} s",
    Failure.FORBIDDEN_TARGET: "{}",
    Failure.HOST_NOT_FOUND: "host name not found",
    Failure.TLS_FAILED: "TLS failed: {}",
    Failure.NOT_HTTP: "not an HTTP answer: {}",
    Failure.CLOSED_WITHOUT_RESPONSE: "connection closed without an answer",
    Failure.RESPONSE_TOO_LONG: f"answer without an end: over {MAX_RESPONSE_BYTES} bytes",
    Failure.SYSTEM_ERROR: "{}",
    Failure.UNEXPECTED: "the call failed: {}",
}


OWN_FAILURES: dict[type[Exception], Failure] = {
    InvalidUrl: Failure.INVALID_URL,
    ForbiddenTarget: Failure.FORBIDDEN_TARGET,
    ResponseTooLong: Failure.RESPONSE_TOO_LONG,
    NotHttp: Failure.NOT_HTTP,
}
"""The failures that errors of this package stand for. Each sender adds those of its library."""


def timed_out(deadline_s: float) -> str:
    """Return the text of a call that had no response within ``deadline_s`` seconds."""
    return Failure.TIMED_OUT.text(f"{deadline_s:g}")


def system_error(error: BaseException) -> str | None:
    """Return the text of an error with an ``errno``, such as a refused connection; else None."""
    # The errors of look-ups (``socket.gaierror``) are OSErrors too. Their numbers are negative and
    # have another meaning.
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return Failure.SYSTEM_ERROR.text(os.strerror(error.errno).lower())
    return None


def lacks_files(error: BaseException) -> bool:
    """Return whether the system refused an open file (or socket) to this process, or to all.

    That says nothing about the receiver, so it is no failed attempt.
    """
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def unexpected(error: BaseException) -> str:
    """Return the text of an error for which there is no ``Failure`` of its own.

    Only its kind: its text may quote the receiver, and attempt records never do.
    """
    return Failure.UNEXPECTED.text(type(error).__name__)
