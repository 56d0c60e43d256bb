"""API keys: how they are written and read, and what is stored of them.

A key is ``wt_`` and 32 random bytes in base64url; only its SHA-256 is stored. A slow hash, as for
passwords, is not needed: a key with 256 bits of entropy cannot be guessed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from chalicelib.domain.errors import InvalidTenant, Unauthorized

PREFIX = "wt_"
"""Makes a leaked key easy to find, for its owner and for secret scanners."""

KEY_BYTES = 32

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_BEARER = re.compile(rf"(?i:bearer) {{1,4}}({PREFIX}[A-Za-z0-9_-]{{43}}) {{0,4}}", re.ASCII)
"""Of limited length, because API Gateway caches a policy for every spelling of the header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is stored of one key. ``id`` names it in public; ``created_at`` is epoch ms, UTC."""

    id: str
    tenant: str
    created_at: int
    digest: bytes = field(repr=False)

    def matches(self, digest: bytes) -> bool:
        """Compare ``digest`` with this key's in constant time."""
        return hmac.compare_digest(self.digest, digest)


def write(secret: bytes) -> str:
    """Return the key made of ``secret``, 32 random bytes."""
    return PREFIX + base64.urlsafe_b64encode(secret).decode().rstrip("=")


def digest_of(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


def read_bearer(header: str) -> str:
    """Return the key in an ``Authorization`` header (RFC 6750).

    Raises ``Unauthorized`` if it holds no well-formed key.
    """
    found = _BEARER.fullmatch(header)
    if found is None:
        raise Unauthorized
    return found[1]


def tenant_name(name: str) -> str:
    """Return ``name`` if a tenant may have it. Raises ``InvalidTenant``."""
    if not _TENANT.fullmatch(name):
        raise InvalidTenant(
            f"{name[:100]!r} names no tenant: use 1 to 63 of a-z, 0-9 and -, not - first."
        )
    return name
