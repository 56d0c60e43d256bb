"""The cursor of a list: the id below which the next page begins, encoded for clients. Pure."""

from __future__ import annotations

import base64
import binascii
import re

MAX_ID = 2**63 - 1
"""The largest integer of SQLite."""

# ASCII only: `int` also reads the digits of other scripts.
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def is_id(text: str) -> bool:
    """Tell whether ``text`` can be the id of a timer."""
    return bool(_ID.fullmatch(text)) and int(text) <= MAX_ID


def write(before: int) -> str:
    """Return the cursor of the page that begins below ``before``."""
    return base64.urlsafe_b64encode(str(before).encode()).decode().rstrip("=")


def read(cursor: str) -> int:
    """Return the id below which the page of ``cursor`` begins. Raises ``ValueError``."""
    try:
        # `write` leaves the padding out, because "=" is escaped in a URL.
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        before = text.decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        before = ""
    if not is_id(before):
        raise ValueError("is not a cursor that an answer gave")
    return int(before)
