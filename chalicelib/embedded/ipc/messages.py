"""What goes over the local socket: one JSON array a line, ``[method, arguments]`` there and back
``[null, result]``, or ``[error code, detail]`` and where there is one the ``Retry-After``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.domain.attempt_log import decode, encode
from chalicelib.domain.errors import (
    RateLimited,
    TimerChanged,
    TimerInFlight,
    TimerNotFound,
    TimersError,
    Unavailable,
)
from chalicelib.domain.timer import NewTimer, Status, Timer
from chalicelib.service.ports import Reschedule

_ERRORS: Mapping[str, Callable[..., TimersError]] = {
    error.code: error
    for error in (TimerNotFound, TimerInFlight, TimerChanged, RateLimited, Unavailable)
}
_encode = json.JSONEncoder(separators=(",", ":")).encode


def request(method: str, arguments: dict[str, Any]) -> bytes:
    """Return a request as it goes over the wire."""
    return _encode([method, arguments]).encode() + b"\n"


def read_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the method and the arguments of a request."""
    method, arguments = json.loads(line)
    return method, arguments


def result(value: object) -> bytes:
    """Return an answer: a timer, a number, or nothing."""
    if isinstance(value, Timer):
        value = fields(value) | {"log": encode(value.log)}
    return _encode([None, value]).encode() + b"\n"


def error(raised: TimersError) -> bytes:
    """Return the answer to a request that was refused."""
    retry_after = [raised.retry_after] if isinstance(raised, (RateLimited, Unavailable)) else []
    return _encode([raised.code, raised.detail, *retry_after]).encode() + b"\n"


def read_answer(line: bytes) -> Any:
    """Return the result in an answer; raise the error in it."""
    code, *values = json.loads(line)
    if code is not None:
        raise _ERRORS.get(code, Unavailable)(*values)
    return values[0]


def read_timer(value: dict[str, Any]) -> Timer:
    """Return the timer in a result."""
    return Timer(**value | {"status": Status(value["status"]), "log": decode(value["log"])})


def fields(value: NewTimer | Reschedule | Timer) -> dict[str, Any]:
    """Return the fields of ``value`` by name, as the arguments of a request."""
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}


_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind))
    for kind in (NewTimer, Reschedule, Timer)
}
