"""Limits on reading a receiver's response.

Only the status and Retry-After matter. The rest may be hostile: endless, slow or malformed.
"""

from __future__ import annotations

import re

MAX_RESPONSE_BYTES = 131_072
"""Bytes read of one response at most: interim responses, headers, body and trailers."""

MAX_DRAIN_BYTES = 65_536
"""Bytes of the body read at most. The body is read only so that its connection can be reused."""

MAX_DRAIN_S = 1.0
"""Seconds spent on reading the body at most. A new connection is cheaper than a longer wait."""

# Nine digits are 31 years, far above the limit of a day that ``retry.decide`` sets.
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class ResponseTooLong(Exception):
    """The receiver sent more than ``MAX_RESPONSE_BYTES``, and the headers are not complete."""


def parse_retry_after(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, section 10.2.3).

    Return None if it has no number. The header's other form, a date, is ignored.
    """
    return float(header) if _DELTA_SECONDS.fullmatch(header) else None
