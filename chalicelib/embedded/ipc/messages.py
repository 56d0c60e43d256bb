"""The messages on the local socket: each is a number and a JSON array, on a line of its own.

The response to a request has its number, so that requests may share a connection. A request is
``[method, arguments]``. A response is ``[null, result]`` or ``[error code, detail]``. The seconds
of ``Retry-After`` are the third element if the error has them. The supervisor starts both sides, so
they run the same version, and the format may change with any version.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.domain.attempt_log import decode, encode
from chalicelib.domain.claim import Reschedule
from chalicelib.domain.errors import (
    AdvanceUnfinished,
    ClockMoving,
    IdempotencyKeyReused,
    QuotaExceeded,
    RateLimited,
    TimerChanged,
    TimerInFlight,
    TimerNotFound,
    TimersError,
    TimerSettled,
    Unavailable,
)
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.keyed import KeyedTimer, SetByKey
from chalicelib.domain.optional_fields import optional_fields, read_optional_fields
from chalicelib.domain.timer import Lease, NewTimer, Status, Timer
from chalicelib.service.movable_clock import Advanced

# The errors that a store raises, by code: so the client raises the error that the store raised.
_ERRORS: Mapping[str, Callable[..., TimersError]] = {
    error.code: error
    for error in (
        TimerNotFound,
        TimerInFlight,
        TimerSettled,
        TimerChanged,
        IdempotencyKeyReused,
        RateLimited,
        QuotaExceeded,
        ClockMoving,
        AdvanceUnfinished,
        Unavailable,
    )
}
# Made once: `json.dumps` with separators would make an encoder for each message.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def request(method: str, arguments: dict[str, Any]) -> bytes:
    """Return the line of a request."""
    return _encode([method, arguments]).encode() + b"\n"


def numbered(number: int, message: bytes) -> bytes:
    """Return a message as it is sent: with the number of its request."""
    return b"%d %b" % (number, message)


def read_number(line: bytes) -> tuple[int, bytes]:
    """Return the number of a request, and the message."""
    number, _, message = line.partition(b" ")
    return int(number), message


def read_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the method and the arguments of a request."""
    method, arguments = json.loads(line)
    return method, arguments


def result(value: object) -> bytes:
    """Return the line of a successful response: a timer, a number, nothing, …"""
    return _encode([None, _plain(value)]).encode() + b"\n"


def error(raised: TimersError) -> bytes:
    """Return the line of a response that refuses a request."""
    retry_after = [raised.retry_after] if isinstance(raised, (RateLimited, Unavailable)) else []
    return _encode([raised.code, raised.detail, *retry_after]).encode() + b"\n"


def from_created(created: SetOnce | TimersError) -> list[Any]:
    """Return one result of a batch as a part of a response."""
    if isinstance(created, SetOnce):
        return [None, created.timer_id, created.replayed]
    return list(json.loads(error(created)))


def read_created(part: list[Any]) -> SetOnce | TimersError:
    """Return one result of a batch."""
    code, *values = part
    return SetOnce(*values) if code is None else _ERRORS.get(code, Unavailable)(*values)


def read_response(line: bytes) -> Any:
    """Return the result in a response; raise the error in it."""
    code, *values = json.loads(line)
    if code is not None:
        raise _ERRORS.get(code, Unavailable)(*values)
    return values[0]


def from_new_timer(new: NewTimer) -> dict[str, Any]:
    """Return a new timer as the arguments of a request."""
    return _fields(new) | _from_optional(new)


def read_new_timer(arguments: dict[str, Any]) -> NewTimer:
    """Return the new timer in the arguments of a request."""
    base = {name: arguments[name] for name in _FIELDS[NewTimer]}
    return NewTimer(**base, **_read_optional(arguments))


def from_set_by_key(wanted: SetByKey) -> dict[str, Any]:
    """Return the set of a keyed timer as the arguments of a request."""
    return from_new_timer(wanted.new) | {
        "bound_ms": wanted.bound_ms,
        "new_if_in_flight": wanted.new_if_in_flight,
    }


def read_set_by_key(arguments: dict[str, Any]) -> SetByKey:
    """Return the set of a keyed timer in the arguments of a request."""
    return SetByKey(
        new=read_new_timer(arguments),
        bound_ms=arguments["bound_ms"],
        new_if_in_flight=arguments["new_if_in_flight"],
    )


def read_keyed_timer(value: dict[str, Any]) -> KeyedTimer:
    """Return the keyed timer in a result."""
    return KeyedTimer(read_timer(value["timer"]), created=value["created"])


def from_reschedule(change: Reschedule) -> dict[str, Any]:
    """Return a reschedule as the arguments of a request."""
    return _fields(change)


def read_reschedule(arguments: dict[str, Any]) -> Reschedule:
    """Return the reschedule in the arguments of a request."""
    return Reschedule(**arguments | {"status": Status(arguments["status"])})


def read_timer(value: dict[str, Any]) -> Timer:
    """Return the timer in a result."""
    base = {name: value[name] for name in _FIELDS[Timer]} | {
        "status": Status(value["status"]),
        "lease": value["lease"] and Lease(**value["lease"]),
        "log": decode(value["log"]),
    }
    return Timer(**base, **_read_optional(value))


def read_advanced(value: dict[str, Any]) -> Advanced:
    """Return in a result how the test clock was moved."""
    results = [(timer_id, Status(status)) for timer_id, status in value["results"]]
    return Advanced(now=value["now"], results=results)


def _plain(value: object) -> object:
    """Return a value as JSON can have it."""
    if isinstance(value, Timer):
        return _from_timer(value)
    if isinstance(value, KeyedTimer):
        return {"timer": _from_timer(value.timer), "created": value.created}
    if isinstance(value, Advanced):
        return {"now": value.now, "results": value.results}
    return value


def _from_timer(timer: Timer) -> dict[str, Any]:
    return (
        _fields(timer)
        | _from_optional(timer)
        | {
            "lease": timer.lease and dataclasses.asdict(timer.lease),
            "log": encode(timer.log),
        }
    )


def _from_optional(timer: NewTimer | Timer) -> dict[str, Any]:
    """Return the optional fields. JSON has no bytes, so those are in Base64."""
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in optional_fields(timer).items()
    }


def _read_optional(arguments: dict[str, Any]) -> dict[str, Any]:
    given = {
        name: base64.b64decode(value) if name in _BYTES else value
        for name, value in arguments.items()
    }
    return read_optional_fields(given)


_BYTES = ("body", "request_digest")


def _fields(value: NewTimer | Reschedule | Timer) -> dict[str, Any]:
    """Return the fields by name. ``dataclasses.asdict`` copies every value and takes far longer."""
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}


# These fields of timers travel as ``optional_fields``.
_OPTIONAL_ARGUMENTS = ("options", "content", "labels", "key", "no_later_than", "idempotency")

_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(
        field.name for field in dataclasses.fields(kind) if field.name not in _OPTIONAL_ARGUMENTS
    )
    for kind in (NewTimer, Timer)
}
_FIELDS[Reschedule] = tuple(field.name for field in dataclasses.fields(Reschedule))
