"""The values in requests and responses, with their limits.

Each alias is one schema of the OpenAPI document and has its name. ``json_schema_extra`` is for the
document only: the code checks the same elsewhere, with a better message.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
)
from typing_extensions import TypeAliasType

from chalicelib.domain.target import MAX_URL_BYTES, MAX_URL_CHARACTERS, parse_target
from chalicelib.domain.timer import Status
from chalicelib.rest.cursor import MAX_ID

MAX_DELAY_S = 10 * 365 * 24 * 60 * 60
"""Ten years of 365 days: the longest delay accepted."""

DELAY_TOO_LONG = f"the delay may be at most 10 years ({MAX_DELAY_S} seconds)"
SECONDS_IN = {"hours": 3600, "minutes": 60, "seconds": 1}

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_DATE_TIME = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}"
_URL = (
    r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#\s\\\x00-\x1f\x7f]+"
    r"([/?#]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?)?$"
)


def _check_target(url: str, info: ValidationInfo) -> str:
    target = parse_target(url)
    # Only an address in the URL can be checked here: a name is checked when it is resolved, before
    # each call.
    if info.context:
        info.context.guard.check_literal(target.host)
    return url


def _check_rfc3339(value: Any) -> Any:
    """Refuse other texts that pydantic reads as a time, such as "20261124" (seconds since 1970)."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time as in RFC 3339, such as 2026-11-24T12:00:00Z")
    return value


def _amount(seconds: int) -> Any:
    # No upper bound: the amounts are checked together, and one fault names the largest (delay.py).
    return Field(ge=0, json_schema_extra={"maximum": MAX_DELAY_S // seconds})


Hours = TypeAliasType("Hours", Annotated[int, _amount(3600)])
Minutes = TypeAliasType("Minutes", Annotated[int, _amount(60)])
Seconds = TypeAliasType("Seconds", Annotated[int, _amount(1)])

Id = TypeAliasType("Id", Annotated[int, Field(ge=1, le=MAX_ID)])

Url = TypeAliasType(
    "Url",
    Annotated[
        str,
        StringConstraints(max_length=MAX_URL_CHARACTERS),
        AfterValidator(_check_target),
        Field(
            description="An absolute `http` or `https` URL with a host. Control characters, blanks "
            "before its path, and addresses that must not be called are refused. It has at most "
            f"{MAX_URL_BYTES:,} bytes, also where other characters become escapes.",
            json_schema_extra={"pattern": _URL, "format": "webhook-url"},
        ),
    ],
)

StatusName = TypeAliasType(
    "StatusName", Annotated[str, Field(json_schema_extra={"enum": [each.value for each in Status]})]
)

TimeLeft = TypeAliasType(
    "TimeLeft",
    Annotated[
        int,
        Field(
            ge=0,
            le=MAX_DELAY_S,
            description="Whole seconds until the timer is due, rounded up. 0 means expired and "
            "nothing else, whether or not the webhook was delivered.",
        ),
    ],
)

Moment = TypeAliasType(
    "Moment",
    Annotated[
        str,
        Field(
            description="RFC 3339, UTC, to the millisecond.",
            json_schema_extra={
                "format": "date-time",
                "pattern": _DATE_TIME.replace("[Tt]", "T") + r"\.[0-9]{3}Z$",
            },
        ),
    ],
)

Instant = TypeAliasType(
    "Instant",
    Annotated[
        AwareDatetime,
        Strict(strict=False),  # JSON has no times, and strict mode would accept no text
        BeforeValidator(_check_rfc3339),
        Field(
            description="RFC 3339, with an offset from UTC.",
            json_schema_extra={"pattern": _DATE_TIME + r"(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"},
        ),
    ],
)
