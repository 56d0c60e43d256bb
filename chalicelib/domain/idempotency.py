"""Idempotent requests: a client that repeats one gets the timer that the first one set.

The key is the client's, the digest says which request it was used for. Both are kept with the
timer, so the key is free again when the timer is gone.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.errors import IdempotencyKeyReused
from chalicelib.domain.timer import Idempotency, Timer

MAX_KEY_CHARACTERS = 255

KEY_PATTERN = f"^[!-~]{{1,{MAX_KEY_CHARACTERS}}}$"
"""Visible ASCII: no blanks, no control characters."""

_KEY = re.compile(KEY_PATTERN.strip("^$"))
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class SetOnce:
    """The id of the timer of an idempotent request. ``replayed``: an earlier request set it."""

    timer_id: int
    replayed: bool


def idempotency_of(key: str, operation: str, body: Any) -> Idempotency:
    """Return the idempotency of a request to ``operation`` (``POST /timers``).

    ``body`` is the parsed JSON. It is compared as it was sent: a relative delay stays relative,
    while blanks and the order of members do not count. Raises ``ValueError`` for a wrong key.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters")
    return Idempotency(key=key, digest=_digest(f"{operation}\n{_canonical(body)}"))


def replay(timer: Timer, wanted: Idempotency) -> SetOnce:
    """Return the answer to a request whose key ``timer`` has. Raises ``IdempotencyKeyReused``."""
    require_same(None if timer.idempotency is None else timer.idempotency.digest, wanted)
    return SetOnce(timer.id, replayed=True)


def require_same(digest: bytes | None, wanted: Idempotency) -> None:
    """Raise ``IdempotencyKeyReused`` unless ``digest`` is that of the request ``wanted``."""
    if digest != wanted.digest:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for another request, whose timer still exists. Send a "
            "new key with a new request."
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
