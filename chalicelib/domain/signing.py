"""Signatures of webhooks: Standard Webhooks 1.0, symmetric (``v1``). Pure functions.

The signature is HMAC-SHA256 over ``id.timestamp.body``. The header ``webhook-signature`` has it as
base64. During a rotation both the old and the new key sign, so that receivers can change over at
any time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"

# The limits of Standard Webhooks 1.0.
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


def read_secrets(text: str) -> tuple[bytes, ...]:
    """Return the signing keys of the secrets in ``text``, which are separated by blanks.

    Raises ``ValueError`` if one is malformed. The message never shows a secret.
    """
    return tuple(read_secret(word) for word in text.split())


def read_secret(text: str) -> bytes:
    """Return the signing key in a secret ``whsec_<base64>``.

    Raises ``ValueError`` unless the key has 24 to 64 bytes. The message never shows the secret.
    """
    if not text.startswith(PREFIX):
        raise ValueError(f"a signing secret starts with {PREFIX}")
    try:
        key = base64.b64decode(text[len(PREFIX) :], validate=True)
    except ValueError:
        raise ValueError(f"a signing secret is {PREFIX} and base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"a signing secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes")
    return key


def write_secret(key: bytes) -> str:
    """Return the secret ``whsec_<base64>`` of a signing key, as receivers configure it."""
    return PREFIX + base64.b64encode(key).decode()


def signature(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes = b"") -> str:
    """Return the value of ``webhook-signature``: one ``v1,<base64>`` per signing key, in order.

    ``timestamp`` is in seconds, as in the header ``webhook-timestamp``.
    """
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    digests = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)
