"""The headers of responses other than Content-Type, as the OpenAPI document describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Headers = dict[str, str | list[str]]
"""The type of headers in Chalice's ``Response``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header of a response, and the JSON schema of its value."""

    name: str
    description: str
    schema: dict[str, Any]
    required: bool = True


LOCATION = Header(
    name="Location",
    description="The path of the timer.",
    schema={"type": "string", "pattern": "/timers/[1-9][0-9]*$"},
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
