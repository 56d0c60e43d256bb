"""Limits on reading a receiver's response.

Only the status and Retry-After matter. The rest may be hostile: endless, slow or malformed.
"""

from __future__ import annotations

import re
from datetime import timezone
from email.utils import parsedate_to_datetime

MAX_RESPONSE_BYTES = 131_072
"""Bytes read of one response at most: interim responses, headers, body and trailers."""

MAX_DRAIN_BYTES = 65_536
"""Bytes of the body read at most. The body is read only so that its connection can be reused."""

MAX_DRAIN_S = 1.0
"""Seconds spent on reading the body at most. A new connection is cheaper than a longer wait."""

_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", re.ASCII)
"""An IMF-fixdate, the one form of a date that servers may send (RFC 9110, section 5.6.7)."""

# Nine digits are 31 years, far above the limit of a day that ``retry.decide`` sets.
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class ResponseTooLong(Exception):
    """The receiver sent more than a limit of ours allows, without a final status line."""


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
