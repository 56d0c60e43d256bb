"""The use cases of API keys: issue, list, revoke, and find the tenant of a request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chalicelib.domain import api_key
from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import Unauthorized
from chalicelib.service.ports import ApiKeyStore, Clock

RandomBytes = Callable[[int], bytes]
"""Returns the given number of unpredictable bytes."""

AUTHORIZER_CACHE_TTL_S = 60
"""How long a gateway may cache the tenant of an API key. A revoked key is accepted for as long."""

_ID_BYTES = 5  # 8 characters of base32, without padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new API key. ``text`` is the key itself. It is shown once only, as it is not stored."""

    key: ApiKey
    text: str = field(repr=False)


class ApiKeys:
    """Issues, lists and revokes the API keys of a store, and finds the tenant of a key."""

    def __init__(self, store: ApiKeyStore, clock: Clock, random_bytes: RandomBytes) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes

    def issue(self, tenant: str) -> Issued:
        """Make a key for ``tenant``. Raises ``InvalidTenant`` and ``Unavailable``."""
        text = api_key.encode(self._random_bytes(api_key.KEY_BYTES))
        issued = ApiKey(
            id=base64.b32encode(self._random_bytes(_ID_BYTES)).decode().lower(),
            tenant=api_key.check_tenant_name(tenant),
            created_at=int(self._clock()),
            digest=api_key.digest_of(text),
        )
        self._store.add(issued)
        return Issued(key=issued, text=text)

    def issue_first(self, tenant: str) -> Issued | None:
        """Make a key for ``tenant`` unless it has one. Raises as ``issue`` does."""
        if any(each.tenant == tenant for each in self._store.list()):
            return None
        return self.issue(tenant)

    def list(self) -> Sequence[ApiKey]:
        """Return every key, oldest first. Raises ``Unavailable``."""
        return sorted(self._store.list(), key=lambda each: (each.created_at, each.id))

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key and return it. Gateways may accept it for ``AUTHORIZER_CACHE_TTL_S`` more.

        Raises ``KeyNotFound`` and ``Unavailable``.
        """
        return self._store.revoke(key_id)

    def tenant_of(self, authorization: str) -> str:
        """Return the tenant of the key in an ``Authorization`` header.

        Raises ``Unauthorized`` and ``Unavailable``. A malformed key is not looked up.
        """
        digest = api_key.digest_of(api_key.parse_bearer(authorization))
        key = self._store.find(digest)
        # A store may look up a part of the digest only. The whole digest decides.
        if key is None or not key.matches(digest):
            raise Unauthorized
        return key.tenant
