"""The headers of responses other than Content-Type, as the OpenAPI document describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.domain.idempotency import KEY_PATTERN

Headers = dict[str, str | list[str]]
"""The type of headers in Chalice's ``Response``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header of a request or a response, and the JSON schema of its value."""

    name: str
    description: str
    schema: dict[str, Any]
    required: bool = True


LOCATION = Header(
    name="Location",
    description="The path of the timer.",
    schema={"type": "string", "pattern": "/timers/[1-9][0-9]*$"},
)
IDEMPOTENCY_KEY = Header(
    name="Idempotency-Key",
    description="Repeats are safe: as long as the timer exists, the same key with the same request "
    "gets the same answer, and sets no other timer. Requests are compared as they are sent, so a "
    "relative delay stays relative; blanks and the order of fields do not count. A refused request "
    "uses up no key.",
    schema={"type": "string", "pattern": KEY_PATTERN},
    required=False,
)
IDEMPOTENT_REPLAYED = Header(
    name="Idempotent-Replayed",
    description="The timer was set by an earlier request with the same `Idempotency-Key`. Absent "
    "otherwise.",
    schema={"const": "true"},
    required=False,
)
LINK = Header(
    name="Link",
    description='The next page: `</timers?limit=…&cursor=…>; rel="next"`. Absent on the last.',
    schema={"type": "string", "pattern": '^</[^>]*>; rel="next"$'},
    required=False,
)
ALLOW = Header(
    name="Allow", description="The methods that the path has.", schema={"type": "string"}
)
WWW_AUTHENTICATE = Header(
    name="WWW-Authenticate", description="How to authenticate.", schema={"const": "Bearer"}
)
RETRY_AFTER = Header(
    name="Retry-After",
    description="Seconds after which to try again.",
    schema={"type": "integer", "minimum": 1},
)
