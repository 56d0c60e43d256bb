"""API keys: their format, and the hash that is stored instead of the key.

A key is ``wt_`` and 32 random bytes in base64url. Only its SHA-256 is stored. A slow hash, as for
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
"""The prefix by which the owner of a leaked key, and secret scanners, can find it."""

KEY_BYTES = 32
"""Random bytes in a key."""

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
# 43 characters of base64url are 32 bytes. Only a few blanks are allowed, because API Gateway caches
# a policy for every spelling of the header.
_BEARER = re.compile(rf"(?i:bearer) {{1,4}}({PREFIX}[A-Za-z0-9_-]{{43}}) {{0,4}}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """The stored record of one key. ``id`` is not secret. ``created_at`` is epoch ms, UTC."""

    id: str
    tenant: str
    created_at: int
    digest: bytes = field(repr=False)

    def matches(self, digest: bytes) -> bool:
        """Compare ``digest`` with the digest of this key in constant time."""
        return hmac.compare_digest(self.digest, digest)


def encode(secret: bytes) -> str:
    """Return the text of the key with the random bytes ``secret`` (``KEY_BYTES`` of them)."""
    return PREFIX + base64.urlsafe_b64encode(secret).decode().rstrip("=")


def digest_of(key: str) -> bytes:
    """Return the SHA-256 of a key's text, prefix included."""
    return hashlib.sha256(key.encode()).digest()


def parse_bearer(header: str) -> str:
    """Return the key in an ``Authorization`` header (RFC 6750).

    Raises ``Unauthorized`` if it has no well-formed key.
    """
    match = _BEARER.fullmatch(header)
    if match is None:
        raise Unauthorized
    return match[1]


def check_tenant_name(name: str) -> str:
    """Return ``name`` if it is a valid name of a tenant, else raise ``InvalidTenant``."""
    if not _TENANT.fullmatch(name):
        raise InvalidTenant(
            f"{name[:100]!r} names no tenant: use 1 to 63 of a-z, 0-9 and -, not - first."
        )
    return name
