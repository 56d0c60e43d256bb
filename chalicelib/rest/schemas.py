"""What comes in and goes out over HTTP, checked by pydantic."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator as After
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)
from typing_extensions import Self

from chalicelib.domain.attempt_log import AttemptRecord, last_attempt
from chalicelib.domain.errors import Fault, InvalidRequest, MalformedBody
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.target import MAX_URL_CHARACTERS, parse_target
from chalicelib.domain.timer import Timer
from chalicelib.rest import cursor as cursors
from chalicelib.service.dead_letters import DEFAULT_PER_S, FailedTimers, Replayed
from chalicelib.service.timers import TimerRequest

MAX_DELAY_S = 10 * 365 * 24 * 60 * 60
"""Ten years of 365 days: the longest delay accepted."""

MIN_REPLAYS_PER_S = 0.1
MAX_REPLAYS_PER_S = 10_000

_LIMIT = f"the delay may be at most 10 years ({MAX_DELAY_S} seconds)"
_SECONDS_IN = {"hours": 3600, "minutes": 60, "seconds": 1}
_TIME_FIELDS = tuple(_SECONDS_IN)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far one timer's own policy may go in this service, and where it may lead."""

    max_attempts: int
    timeout_s: float
    guard: Guard


def _is_target(url: str, info: ValidationInfo) -> str:
    target = parse_target(url)
    if info.context:
        info.context.guard.check_literal(target.host)
    return url


def _within_attempts(value: int, info: ValidationInfo) -> int:
    most = info.context.max_attempts if info.context else value
    if value > most:
        raise ValueError(f"may be at most {most} here (TIMERS_RETRY_DELAYS)")
    return value


def _within_timeout(value: int, info: ValidationInfo) -> int:
    most = info.context.timeout_s if info.context else value
    if value > most:
        raise ValueError(f"may be at most {most:g} seconds here (TIMERS_SEND_TIMEOUT)")
    return value


def _is_cursor(text: str) -> str:
    cursors.read(text)
    return text


def _is_rfc3339(value: Any) -> Any:
    """Refuse what pydantic would read as a time besides: "20261124" as seconds since 1970."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time as in RFC 3339, such as 2026-11-24T12:00:00Z")
    return value


Cursor = Annotated[str, StringConstraints(max_length=64), After(_is_cursor)]
Amount = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Url = Annotated[str, StringConstraints(max_length=MAX_URL_CHARACTERS), After(_is_target)]
Moment = Annotated[AwareDatetime, Strict(False), BeforeValidator(_is_rfc3339)]


class _Request(BaseModel):
    """A JSON body: every fault is found, an unknown field is one of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def parse(cls, body: bytes, limits: Limits | None = None) -> Self:
        """Read a request body.

        Raises ``MalformedBody`` when it is not JSON and ``InvalidRequest`` with every fault when
        it is JSON but no valid request.
        """
        try:
            return cls.model_validate_json(body, context=limits)
        except ValidationError as error:
            raise cls.refusal(body, error) from error

    @classmethod
    def refusal(cls, body: bytes, error: ValidationError) -> MalformedBody | InvalidRequest:
        """Return what is wrong with a body that pydantic does not take."""
        details = error.errors(include_url=False, include_input=False)
        if details[0]["type"] == "json_invalid":
            reason = "the body is empty" if not body.strip() else details[0]["ctx"]["error"]
            return MalformedBody(f"The body must be JSON: {reason}")
        return InvalidRequest([_fault(detail) for detail in details])


class MoveTimer(_Request):
    """The body of ``PATCH /timers/{id}``: a new delay. Amounts above 59 carry over."""

    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0

    @property
    def delay_ms(self) -> int:
        """The delay in milliseconds."""
        return _delay_s(self.hours, self.minutes, self.seconds) * 1000

    @classmethod
    def parse(cls, body: bytes, limits: Limits | None = None) -> Self:
        """Read a request body; see ``_Request``. The amounts are checked together too."""
        request = super().parse(body, limits)
        given = request.model_fields_set
        late = _delay_fault(
            {name: getattr(request, name) for name in _TIME_FIELDS if name in given}
        )
        if late:
            raise InvalidRequest([late])
        return request

    @classmethod
    def refusal(cls, body: bytes, error: ValidationError) -> MalformedBody | InvalidRequest:
        """Return what is wrong, the amounts taken together too."""
        refusal = super().refusal(body, error)
        amounts = _amounts(body)
        if isinstance(refusal, MalformedBody) or amounts is None:
            return refusal
        together = _delay_fault(amounts)
        if together and together.field not in {fault.field for fault in refusal.faults}:
            return InvalidRequest([*refusal.faults, together])
        return refusal


class SetTimer(MoveTimer):
    """The body of ``POST /timers``. ``timeout`` is in seconds."""

    url: Url
    max_attempts: Annotated[Positive, After(_within_attempts)] | None = None
    timeout: Annotated[Positive, After(_within_timeout)] | None = None
    on_failure_url: Url | None = None

    def order(self) -> TimerRequest:
        """Return what the client asks for."""
        return TimerRequest(
            url=self.url,
            delay_ms=self.delay_ms,
            max_attempts=self.max_attempts,
            timeout_s=self.timeout,
            on_failure_url=self.on_failure_url,
        )


class ReplayTimers(_Request):
    """The body of ``POST /timers/replay``. Without ``dry_run: false`` it only counts.

    ``per_second`` is how fast the replayed timers are called.
    """

    url_prefix: str = ""
    failed_from: Moment | None = None
    failed_until: Moment | None = None
    dry_run: bool = True
    per_second: Annotated[float, Field(ge=MIN_REPLAYS_PER_S, le=MAX_REPLAYS_PER_S)] = DEFAULT_PER_S
    cursor: Cursor | None = None

    @property
    def per_s(self) -> float | None:
        """How many a second are to be called; None if they are only to be counted."""
        return None if self.dry_run else self.per_second

    def wanted(self) -> FailedTimers:
        """Return which failed timers are meant."""
        return FailedTimers(
            url_prefix=self.url_prefix,
            failed_from=self.failed_from.timestamp() * 1000 if self.failed_from else 0,
            failed_until=self.failed_until.timestamp() * 1000 if self.failed_until else math.inf,
            before=None if self.cursor is None else cursors.read(self.cursor),
        )


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
    bounds = detail.get("ctx", {})
    messages = {
        "extra_forbidden": "unknown field",
        "missing": "is required",
        "greater_than_equal": f"must be {bounds.get('ge')} or more",
        "bool_type": "must be true or false",
        "int_type": "must be a whole number, written without quotes or a fraction",
        "int_parsing_size": _LIMIT if field in _TIME_FIELDS else "is too large",
        "string_type": "must be a string",
        "string_too_long": f"must have at most {bounds.get('max_length')} characters",
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
    last = last_attempt(timer.log)
    return {
        "id": timer.id,
        "url": timer.url,
        "status": timer.status.value,
        "due_at": rfc3339(timer.due_at),
        "time_left": timer.time_left(now),
        "created_at": rfc3339(timer.created_at),
        "attempts": timer.attempts,
        "next_attempt_at": rfc3339(timer.next_attempt_at),
        "last_error": last.reason if last else None,
        "max_attempts": timer.max_attempts,
        "timeout": timer.timeout_s,
        "on_failure_url": timer.on_failure_url,
    }


def attempt_item(attempt: AttemptRecord) -> dict[str, Any]:
    """Return an attempt as it stands in the list of a timer's attempts."""
    return {
        "call": "on_failure" if attempt.notice else "webhook",
        "at": rfc3339(attempt.at),
        "lateness_ms": attempt.late_ms,
        "duration_ms": attempt.took_ms,
        "status": attempt.status,
        "error": attempt.reason,
    }


def replayed(outcome: Replayed) -> dict[str, Any]:
    """Return the answer to ``POST /timers/replay``."""
    return {
        "matching": outcome.matching,
        "replayed": outcome.replayed,
        "next": None if outcome.before is None else cursors.write(outcome.before),
    }


def rfc3339(moment: int | None) -> str | None:
    """Return epoch milliseconds as an RFC 3339 time in UTC."""
    if moment is None:
        return None
    seconds, milliseconds = divmod(moment, 1000)
    time = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
