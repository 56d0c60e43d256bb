"""The failures that errors of ``requests`` stand for.

``requests`` wraps errors of urllib3, which wraps those of ``http.client``, ``ssl`` and the system.
The error that says what happened may be at any depth.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from http.client import HTTPException, RemoteDisconnected

import requests
from urllib3.exceptions import NameResolutionError, ProtocolError

from chalicelib.domain.failure import (
    OWN_FAILURES,
    Failure,
    lacks_files,
    system_error,
    timed_out,
)

_FAILURES: dict[type[Exception], Failure] = {
    **OWN_FAILURES,
    requests.exceptions.InvalidURL: Failure.INVALID_URL,
    requests.exceptions.InvalidSchema: Failure.INVALID_URL,
    requests.exceptions.MissingSchema: Failure.INVALID_URL,
    NameResolutionError: Failure.HOST_NOT_FOUND,
}


def failure_text(error: BaseException, deadline_s: float) -> str | None:
    """Return why there was no response, as attempt records say it; None for an unknown error.

    ``deadline_s`` is in seconds.
    """
    errors = list(_with_causes(error))
    for cause in errors:
        if isinstance(cause, (TimeoutError, requests.Timeout)):
            return timed_out(deadline_s)
        for kind, failure in _FAILURES.items():
            if isinstance(cause, kind):
                return failure.text(cause)
        if isinstance(cause, ssl.SSLError):
            return Failure.TLS_FAILED.text(errors[-1])
    return _broken_connection(errors)


def ended_early(error: BaseException) -> bool:
    """Return whether the connection ended before the response was complete."""
    return any(isinstance(cause, ProtocolError) for cause in _with_causes(error))


def no_open_files(error: BaseException) -> bool:
    """Return whether the call failed because this process could open no socket."""
    return any(map(lacks_files, _with_causes(error)))


def _broken_connection(errors: Sequence[BaseException]) -> str | None:
    """Return why the connection broke, None if it did not."""
    # The innermost error is the most exact one.
    for cause in reversed(errors):
        if text := system_error(cause):
            return text
        # RemoteDisconnected is an HTTPException too, but means that there was no response at all.
        if isinstance(cause, HTTPException) and not isinstance(cause, RemoteDisconnected):
            return Failure.NOT_HTTP.text(cause)
    return Failure.CLOSED_WITHOUT_RESPONSE.text() if ended_early(errors[0]) else None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and every error it wraps, outermost first.

    requests 2.34 and urllib3 2.8 keep the wrapped error in ``reason`` or among the arguments.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        wrapped = (getattr(cause, "reason", None), *cause.args, cause.__cause__)
        cause = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)
