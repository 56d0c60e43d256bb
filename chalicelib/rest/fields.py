"""The values in requests and responses, with their limits.

Each alias is one schema of the OpenAPI document and has its name. ``json_schema_extra`` is for the
document only: the code checks the same elsewhere, with a better message.
"""

from __future__ import annotations

import re
from datetime import datetime
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

from chalicelib.domain.content import (
    CONTENT_TYPE_PATTERN,
    MAX_CONTENT_TYPE_CHARACTERS,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    METHODS,
    body_of_base64,
    check_content_type,
    check_headers,
)
from chalicelib.domain.content import MAX_BODY_BYTES as MAX_CONTENT_BYTES
from chalicelib.domain.duration import DURATION_PATTERN, MAX_DURATION_CHARACTERS, parse_duration
from chalicelib.domain.labels import LABEL_PATTERN, MAX_LABELS, check_label, check_labels
from chalicelib.domain.moment import (
    DELAY_TOO_LONG,
    MAX_DELAY_S,
    MOMENT_PATTERN,
    ZONE_PATTERN,
    has_offset,
    read_zone,
)
from chalicelib.domain.retry import MAX_RETRY_DELAY_S
from chalicelib.domain.target import MAX_URL_BYTES, MAX_URL_CHARACTERS, parse_target
from chalicelib.domain.timer import Status
from chalicelib.rest.cursor import MAX_ID

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


def _check_duration(text: str) -> str:
    if parse_duration(text) > MAX_DELAY_S * 1000:
        raise ValueError(DELAY_TOO_LONG)
    return text


def _check_retry_delay(text: str) -> str:
    if parse_duration(text) > MAX_RETRY_DELAY_S * 1000:
        raise ValueError(f"{text}: a delay before a retry is at most 24h")
    return text


def _check_zone(name: str) -> str:
    read_zone(name)
    return name


def _check_moment(text: str) -> str:
    has_offset(text)
    return text


def _check_method(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"must be one of {', '.join(METHODS)}")
    return method


def _check_header_map(headers: dict[str, str]) -> dict[str, str]:
    check_headers(headers)
    return headers


def _check_base64(text: str) -> str:
    body_of_base64(text)
    return text


def _check_label_list(labels: list[str]) -> list[str]:
    check_labels(labels)
    return labels


Duration = TypeAliasType(
    "Duration",
    Annotated[
        str,
        AfterValidator(_check_duration),
        Field(
            description="A duration such as `250ms`, `1.5s`, `90m`, `1h30m`, `2d` or `1w`, its "
            "units descending, or as in ISO 8601, `PT4H1S` or `P1DT12H`. At most ten years.",
            json_schema_extra={
                "format": "timer-duration",
                "pattern": DURATION_PATTERN,
                "maxLength": MAX_DURATION_CHARACTERS,
            },
        ),
    ],
)

RetryDelay = Annotated[
    str,
    AfterValidator(_check_retry_delay),
    Field(
        description="A duration of at most 24 h.",
        json_schema_extra={
            "format": "retry-delay",
            "pattern": DURATION_PATTERN,
            "maxLength": MAX_DURATION_CHARACTERS,
        },
    ),
]

RetryDelays = TypeAliasType("RetryDelays", Annotated[list[RetryDelay], Field(max_length=20)])

MomentToCome = TypeAliasType(
    "MomentToCome",
    Annotated[
        str,
        AfterValidator(_check_moment),
        Field(
            description="A moment as in RFC 3339, such as `2026-11-24T12:00:00+01:00`; or local "
            "time without an offset, with `timezone`. A local time that the clocks skip is the "
            "first one after it; one that they repeat is the earlier. Up to 60 s ago means now.",
            json_schema_extra={"format": "moment-to-come", "pattern": MOMENT_PATTERN},
        ),
    ],
)

Zone = TypeAliasType(
    "Zone",
    Annotated[
        str,
        AfterValidator(_check_zone),
        Field(
            description="The IANA name of the time zone of `at`, such as `Europe/Berlin`. Its "
            "rules are applied when the timer is set.",
            json_schema_extra={"format": "time-zone", "pattern": ZONE_PATTERN},
        ),
    ],
)

Method = TypeAliasType(
    "Method",
    Annotated[
        str,
        AfterValidator(_check_method),
        Field(json_schema_extra={"enum": list(METHODS)}),
    ],
)

Headers = TypeAliasType(
    "Headers",
    Annotated[
        dict[str, str],
        AfterValidator(_check_header_map),
        Field(
            description=f"Headers of the webhook: at most {MAX_HEADERS}, {MAX_HEADERS_BYTES} bytes "
            "in all, visible ASCII. Refused are those that frame the request or that the service "
            "sends itself. No response shows a value again.",
            max_length=MAX_HEADERS,
            json_schema_extra={"format": "webhook-headers"},
        ),
    ],
)

Base64 = TypeAliasType(
    "Base64",
    Annotated[
        str,
        AfterValidator(_check_base64),
        Field(
            description="The bytes of the body, instead of `body`, in Base64 with padding.",
            json_schema_extra={
                "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
                "maxLength": MAX_CONTENT_BYTES // 3 * 4,
            },
        ),
    ],
)

ContentType = TypeAliasType(
    "ContentType",
    Annotated[
        str,
        AfterValidator(check_content_type),
        Field(
            description="The Content-Type of the body, in place of `text/plain; charset=utf-8` for "
            "a string, `application/json` for other values and `application/octet-stream`.",
            json_schema_extra={
                "pattern": CONTENT_TYPE_PATTERN,
                "maxLength": MAX_CONTENT_TYPE_CHARACTERS,
            },
        ),
    ],
)

Label = Annotated[str, Field(json_schema_extra={"pattern": LABEL_PATTERN})]

LabelName = TypeAliasType(
    "LabelName",
    Annotated[
        str, AfterValidator(check_label), Field(json_schema_extra={"pattern": LABEL_PATTERN})
    ],
)

Labels = TypeAliasType(
    "Labels",
    Annotated[
        list[Label],
        AfterValidator(_check_label_list),
        Field(
            description="Words to find the timer by.",
            max_length=MAX_LABELS,
            json_schema_extra={"uniqueItems": True},
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


def epoch_ms(moment: datetime | None, otherwise: float) -> float:
    """Return an ``Instant`` as epoch ms, ``otherwise`` if it is absent."""
    return otherwise if moment is None else moment.timestamp() * 1000
