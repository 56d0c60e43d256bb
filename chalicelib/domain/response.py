"""Limits on reading a receiver's response.

Only the status and Retry-After matter. The rest may be hostile.
"""

from __future__ import annotations

import re

MAX_RESPONSE_BYTES = 131_072
"""Bytes read of one response at most: interim responses, headers, body and trailers."""

MAX_DRAIN_BYTES = 65_536
"""Bytes of the body read at most. A connection is only reused when the whole body has been read."""

MAX_DRAIN_S = 1.0
"""Seconds spent on reading the body at most."""

_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class ResponseTooLong(Exception):
    """The receiver sent ``MAX_RESPONSE_BYTES`` and the headers are still not complete."""


def parse_retry_after(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, section 10.2.3).

    None if there is no such number: the header's other form, a date, is ignored.
    """
    return float(header) if _DELTA_SECONDS.fullmatch(header) else None
