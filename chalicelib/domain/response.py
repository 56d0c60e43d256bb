"""How much of a receiver's answer is read: it decides nothing by its length, and may be hostile."""

from __future__ import annotations

import re

MAX_RESPONSE_BYTES = 131_072
"""How much of an answer is taken in at all: interim answers, headers, body and trailers."""

MAX_DRAIN_BYTES = 65_536
"""How much of an answer's body is read, so that its connection can be used again."""

MAX_DRAIN_S = 1.0
"""How long that may take."""

MAX_REASON_CHARACTERS = 200
"""How much of what went wrong is told."""

_DELTA_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class ResponseTooLong(Exception):
    """The receiver sent ``MAX_RESPONSE_BYTES``, and still no final status with its headers."""

    def __init__(self) -> None:
        super().__init__(f"answer without an end: over {MAX_RESPONSE_BYTES} bytes")


def retry_after(header: str) -> float | None:
    """Return what Retry-After asks for, where it is a number of seconds."""
    return float(header) if _DELTA_SECONDS.fullmatch(header) else None
