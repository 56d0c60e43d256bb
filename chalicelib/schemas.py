"""What comes in and goes out over HTTP, checked by pydantic."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator as After
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from chalicelib.errors import Fault, InvalidRequest, MalformedBody
from chalicelib.target import MAX_URL_CHARACTERS, parse_target
from chalicelib.timer import Timer

MAX_DELAY_S = 10 * 365 * 24 * 60 * 60
"""Ten years of 365 days: the longest delay accepted."""

_LIMIT = f"the delay may be at most 10 years ({MAX_DELAY_S} seconds)"
_SECONDS_IN = {"hours": 3600, "minutes": 60, "seconds": 1}
_TIME_FIELDS = tuple(_SECONDS_IN)


def _is_target(url: str) -> str:
    parse_target(url)
    return url


Amount = Annotated[int, Field(ge=0)]
Url = Annotated[str, StringConstraints(max_length=MAX_URL_CHARACTERS), After(_is_target)]


class SetTimer(BaseModel):
    """The body of ``POST /timers``. Amounts above 59 carry over."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0
    url: Url

    @property
    def delay_ms(self) -> int:
        """The delay in milliseconds."""
        return _delay_s(self.hours, self.minutes, self.seconds) * 1000

    @classmethod
    def parse(cls, body: bytes) -> SetTimer:
        """Read a request body.

        Raises ``MalformedBody`` when it is not JSON and ``InvalidRequest`` with every fault when
        it is JSON but no valid request.
        """
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise _refusal(body, error) from error
        given = request.model_fields_set
        late = _delay_fault(
            {name: getattr(request, name) for name in _TIME_FIELDS if name in given}
        )
        if late:
            raise InvalidRequest([late])
        return request


def _delay_s(hours: int, minutes: int, seconds: int) -> int:
    return (hours * 60 + minutes) * 60 + seconds


def _delay_fault(given: dict[str, Any]) -> Fault | None:
    """Return what is wrong with the amounts together; single ones are checked by their field."""
    if not given:
        return Fault("seconds", "say when: at least one of hours, minutes, seconds is required")
    amounts = [given.get(name, 0) for name in _TIME_FIELDS]
    if all(type(amount) is int for amount in amounts) and _delay_s(*amounts) > MAX_DELAY_S:
        return Fault(max(given, key=lambda name: given[name] * _SECONDS_IN[name]), _LIMIT)
    return None


def _refusal(body: bytes, error: ValidationError) -> MalformedBody | InvalidRequest:
    details = error.errors(include_url=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        reason = "the body is empty" if not body.strip() else details[0]["ctx"]["error"]
        return MalformedBody(f"The body must be JSON: {reason}")
    faults = [_fault(detail) for detail in details]
    amounts = _amounts(body)
    together = None if amounts is None else _delay_fault(amounts)
    if together and together.field not in {fault.field for fault in faults}:
        faults.append(together)
    return InvalidRequest(faults)


def _amounts(body: bytes) -> dict[str, Any] | None:
    """Return the amounts as they were given, None where the body is no object."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return {name: document[name] for name in _TIME_FIELDS if name in document}


def _fault(detail: Any) -> Fault:
    field = str(detail["loc"][0]) if detail["loc"] else "body"
    messages = {
        "extra_forbidden": "unknown field",
        "missing": "is required",
        "greater_than_equal": "must be 0 or more",
        "int_type": "must be a whole number, written without quotes or a fraction",
        "int_parsing_size": _LIMIT,
        "string_type": "must be a string",
        "string_too_long": f"must have at most {MAX_URL_CHARACTERS} characters",
        "model_type": "must be a JSON object",
    }
    if detail["type"] == "value_error":
        return Fault(field, str(detail["ctx"]["error"]))
    return Fault(field, messages.get(detail["type"], detail["msg"]))


def timer_status(timer: Timer, now: float) -> dict[str, Any]:
    """Return the answer to ``GET /timers/{id}``."""
    return {"id": timer.id, "time_left": timer.time_left(now)}


def timer_item(timer: Timer, now: float) -> dict[str, Any]:
    """Return a timer as it stands in a list."""
    return {
        "id": timer.id,
        "url": timer.url,
        "status": timer.status.value,
        "due_at": rfc3339(timer.due_at),
        "time_left": timer.time_left(now),
        "created_at": rfc3339(timer.created_at),
        "attempts": timer.attempts,
        "next_attempt_at": rfc3339(timer.next_attempt_at),
    }


def rfc3339(moment: int | None) -> str | None:
    """Return epoch milliseconds as an RFC 3339 time in UTC."""
    if moment is None:
        return None
    seconds, milliseconds = divmod(moment, 1000)
    time = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
