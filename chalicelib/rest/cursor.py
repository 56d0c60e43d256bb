"""The cursor of a list: where the next page begins, encoded for clients. Pure."""

from __future__ import annotations

import base64
import binascii
import re

from chalicelib.domain.selection import DuePosition

MAX_ID = 2**63 - 1
"""The largest integer of SQLite."""

# ASCII only: `int` also reads the digits of other scripts.
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def is_id(text: str) -> bool:
    """Tell whether ``text`` can be the id of a timer."""
    return bool(_ID.fullmatch(text)) and int(text) <= MAX_ID


def write(before: int) -> str:
    """Return the cursor of the page that begins below the id ``before``."""
    return _encode(str(before))


def read(cursor: str) -> int:
    """Return the id below which the page of ``cursor`` begins. Raises ``ValueError``."""
    before = _decode(cursor)
    if not is_id(before):
        raise ValueError(_UNKNOWN)
    return int(before)


def write_due(after: DuePosition) -> str:
    """Return the cursor of the page that begins behind ``after``, by due time."""
    return _encode(f"{after.at}.{after.id}")


def read_due(cursor: str) -> DuePosition:
    """Return the position behind which the page of ``cursor`` begins. Raises ``ValueError``."""
    at, _, timer_id = _decode(cursor).partition(".")
    if not is_id(at) or not is_id(timer_id):
        raise ValueError(_UNKNOWN)
    return DuePosition(int(at), int(timer_id))


def read_any(cursor: str) -> int | DuePosition:
    """Return what a cursor of either list says. Raises ``ValueError``."""
    return read_due(cursor) if "." in _decode(cursor) else read(cursor)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    """Return the text in a cursor, nothing if there is none."""
    try:
        # `_encode` leaves the padding out, because "=" is escaped in a URL.
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return text.decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        return ""


_UNKNOWN = "is not a cursor that an answer gave"
