"""Limits on reading a receiver's response.

Only the status and Retry-After matter. The rest may be hostile.
"""

from __future__ import annotations

import re
from datetime import timezone
from email.utils import parsedate_to_datetime

MAX_RESPONSE_BYTES = 131_072
"""Bytes read of one response at most: interim responses, headers, body and trailers."""

MAX_DRAIN_BYTES = 65_536
"""Bytes of the body read at most. A connection is only reused when the whole body has been read."""

MAX_DRAIN_S = 1.0
"""Seconds spent on reading the body at most."""

_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", re.ASCII)
"""An IMF-fixdate, the one form of a date that servers may send (RFC 9110, section 5.6.7)."""

_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class ResponseTooLong(Exception):
    """The receiver sent ``MAX_RESPONSE_BYTES`` and the headers are still not complete."""


def parse_retry_after(header: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, section 10.2.3).

    It is a number of seconds, or a date, which is compared with ``now`` (epoch s); a date that has
    passed asks for 0. None if it is neither.
    """
    if _DELTA_SECONDS.fullmatch(header):
        return float(header)
    if not _DATE.fullmatch(header):
        return None
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, date.replace(tzinfo=timezone.utc).timestamp() - now)
