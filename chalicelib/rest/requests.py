"""The requests of clients: the JSON bodies, and the query of a list."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from chalicelib.domain.errors import Fault
from chalicelib.domain.retry import DEFAULT_DELAYS_S, attempts_allowed
from chalicelib.domain.timer import DeliveryOptions, Status
from chalicelib.rest import cursor as cursors
from chalicelib.rest.delay import delay_fault, delay_s
from chalicelib.rest.fields import (
    SECONDS_IN,
    Hours,
    Instant,
    Minutes,
    Seconds,
    StatusName,
    Url,
)
from chalicelib.rest.validation import Body, Examples, Query
from chalicelib.service.dead_letters import DEFAULT_PER_S, FailedTimers
from chalicelib.service.timers import TimerRequest

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
"""Timers in one page of a list: by default, and at most."""

MIN_REPLAYS_PER_S = 0.1
MAX_REPLAYS_PER_S = 10_000

_LIMIT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


# Settings give these two limits, so they reach a validator in the context (validation.Limits).
def _check_attempts(value: int, info: ValidationInfo) -> int:
    maximum = info.context.max_attempts if info.context else value
    if value > maximum:
        raise ValueError(f"may be at most {maximum} here (TIMERS_RETRY_DELAYS)")
    return value


def _check_timeout(value: int, info: ValidationInfo) -> int:
    maximum = info.context.timeout_s if info.context else value
    if value > maximum:
        raise ValueError(f"may be at most {maximum:g} seconds here (TIMERS_SEND_TIMEOUT)")
    return value


def _check_cursor(text: str) -> str:
    cursors.read(text)
    return text


def _read_limit(text: str) -> int:
    if not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _read_status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError as error:
        names = ", ".join(status.value for status in Status)
        raise ValueError(f"must be one of {names}") from error


class MoveTimer(Body):
    """A new delay.

    `hours`, `minutes` and `seconds` add up, carry over, and are written without a fraction. At
    least one is given. Together they are at most ten years of 365 days, 315,360,000 seconds; 0
    means now. An unknown field is refused.
    """

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in SECONDS_IN]}
    )

    examples: ClassVar[Examples] = {"later": {"value": {"minutes": 2}}}

    hours: Hours = 0
    minutes: Minutes = 0
    seconds: Seconds = 0

    @property
    def delay_ms(self) -> int:
        """The delay in milliseconds."""
        return delay_s(self.hours, self.minutes, self.seconds) * 1000

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the amounts together, None if there is none."""
        # As they were given: a default of 0 must not pass for an amount.
        return delay_fault({name: given[name] for name in SECONDS_IN if name in given})


class SetTimer(MoveTimer):
    """A URL to call, and how long from now, in amounts as in `MoveTimer`."""

    examples: ClassVar[Examples] = {
        "plain": {
            "value": {"hours": 4, "minutes": 0, "seconds": 1, "url": "https://example.com/hook"}
        },
        "policy": {
            "value": {
                "minutes": 90,
                "url": "https://example.com/hook?k=v",
                "max_attempts": 3,
                "timeout": 5,
                "on_failure_url": "https://example.com/failed",
            }
        },
    }

    url: Url
    max_attempts: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Attempts at most. The retry schedule of the service "
                "(`TIMERS_RETRY_DELAYS`) sets the limit.",
                json_schema_extra={"maximum": attempts_allowed(DEFAULT_DELAYS_S)},
            ),
            AfterValidator(_check_attempts),
        ]
        | None
    ) = None
    timeout: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Seconds that one attempt may take, `TIMERS_SEND_TIMEOUT` at most.",
                json_schema_extra={"maximum": 10},  # the default of TIMERS_SEND_TIMEOUT
            ),
            AfterValidator(_check_timeout),
        ]
        | None
    ) = None
    on_failure_url: Annotated[
        Url | None, Field(description="Called once when the timer fails for good.")
    ] = None

    def timer_request(self) -> TimerRequest:
        """Return the timer that the client asks for."""
        return TimerRequest(
            url=self.url,
            delay_ms=self.delay_ms,
            options=DeliveryOptions(
                max_attempts=self.max_attempts,
                timeout_s=self.timeout,
                on_failure_url=self.on_failure_url,
            ),
        )


class ReplayTimers(Body):
    """The failed timers to replay: all of them if no field is given."""

    examples: ClassVar[Examples] = {
        "count": {"value": {}},
        "replay": {
            "value": {
                "url_prefix": "https://example.com/",
                "failed_from": "2026-11-24T00:00:00Z",
                "failed_until": "2026-11-25T00:00:00+01:00",
                "dry_run": False,
            }
        },
    }

    url_prefix: Annotated[str, Field(description="Only timers whose URL begins with this.")] = ""
    failed_from: Annotated[
        Instant | None, Field(description="Only timers that failed then or later.")
    ] = None
    failed_until: Annotated[
        Instant | None, Field(description="Only timers that failed before.")
    ] = None
    dry_run: Annotated[bool, Field(description="Only count the timers.")] = True
    per_second: Annotated[
        float,
        Field(
            ge=MIN_REPLAYS_PER_S,
            le=MAX_REPLAYS_PER_S,
            description="How many timers are called each second, so that a receiver that has just "
            "recovered is not overloaded.",
        ),
    ] = DEFAULT_PER_S
    cursor: Annotated[
        Annotated[
            str,
            StringConstraints(max_length=64),
            AfterValidator(_check_cursor),
            Field(json_schema_extra={"format": "cursor"}),
        ]
        | None,
        Field(description="The `next` of a response that ran out of time."),
    ] = None

    @property
    def per_s(self) -> float | None:
        """How many timers are called each second; None if they are only counted."""
        return None if self.dry_run else self.per_second

    def failed_timers(self) -> FailedTimers:
        """Return the failed timers that the fields select."""
        return FailedTimers(
            url_prefix=self.url_prefix,
            failed_from=self.failed_from.timestamp() * 1000 if self.failed_from else 0,
            failed_until=self.failed_until.timestamp() * 1000 if self.failed_until else math.inf,
            before=None if self.cursor is None else cursors.read(self.cursor),
        )


class ListTimers(Query):
    """The query of ``GET /timers``."""

    limit: Annotated[
        int,
        BeforeValidator(_read_limit),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
        Field(
            description="Timers at most. A page may be short, even empty, while there is a next "
            "one."
        ),
    ] = DEFAULT_LIMIT
    status: Annotated[
        Status | None,
        BeforeValidator(_read_status, json_schema_input_type=StatusName),
        Field(description="Only timers of this status."),
    ] = None
    before: Annotated[
        int | None,
        BeforeValidator(cursors.read),
        WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]+={0,2}$", "format": "cursor"}),
        Field(
            alias="cursor",
            description="Where the page begins: from the `Link` of the page before it.",
            examples=["MTAx"],
        ),
    ] = None
