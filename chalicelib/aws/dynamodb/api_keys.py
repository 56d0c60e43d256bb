"""API keys as items of the table of timers.

All are in one partition, ``KEYS``. The sort key is a number made of the first bytes of the API
key's SHA-256, so a look-up is one GetItem. The item also has the whole hash, which must match. The
sort key of the table is called ``id``, so the API key's own id is called ``key_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb.failures import ConditionFailed
from chalicelib.aws.dynamodb.items import Items
from chalicelib.aws.dynamodb.rows import FORMAT, number, text
from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import KeyNotFound, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.aws.dynamodb.rows import Row

PARTITION = "KEYS"
NUMBER_BYTES = 15
"""Bytes of the hash in the sort key. 120 bits have 37 digits, a number at most 38 (AWS limit)."""


class DynamoDBApiKeyStore:
    """API keys in one DynamoDB table. Thread-safe."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._items = Items(client, table)

    def find(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256, None if there is none."""
        row = self._items.read(_primary_key(digest))
        found = None if row is None else _key(row)
        return found if found is not None and found.matches(digest) else None

    def add(self, key: ApiKey) -> None:
        """Store a new key. Raises ``Unavailable``."""
        try:
            self._items.insert(_row(key))
        except ConditionFailed as failure:
            # A repeated put whose first try applied finds its own row. That is a success.
            if failure.row is None or _key(failure.row) != key:
                raise Unavailable("The place of this key is taken: make another.") from failure

    def list(self) -> Sequence[ApiKey]:
        """Return every key, in no order."""
        found, next_key = self._page(None)
        while next_key is not None:
            page, next_key = self._page(next_key)
            found = [*found, *page]
        return found

    def revoke(self, key_id: str) -> ApiKey:
        """Remove a key and return it as it was. Raises ``KeyNotFound``."""
        # No index leads from ``key_id`` to the item. Keys are few, and few are revoked.
        for key in self.list():
            if key.id == key_id:
                self._delete(key)
                return key
        raise KeyNotFound(f"There is no key {key_id[:30]!r}.")

    def _delete(self, key: ApiKey) -> None:
        # A repeated delete whose first try applied finds nothing, which is as good.
        with suppress(ConditionFailed):
            self._items.delete(
                _primary_key(key.digest), "#digest = :digest", {":digest": text(key.digest.hex())}
            )

    def _page(self, after: Row | None) -> tuple[Sequence[ApiKey], Row | None]:
        rows, last = self._items.query("#pk = :keys", {":keys": text(PARTITION)}, after=after)
        return [_key(row) for row in rows], last


def _primary_key(digest: bytes) -> Row:
    return {
        "pk": text(PARTITION),
        "id": number(int.from_bytes(digest[:NUMBER_BYTES], "big")),
    }


def _row(key: ApiKey) -> Row:
    return {
        **_primary_key(key.digest),
        "f": number(FORMAT),
        "key_id": text(key.id),
        "tenant": text(key.tenant),
        "created_at": number(key.created_at),
        "digest": text(key.digest.hex()),
    }


def _key(row: Row) -> ApiKey:
    return ApiKey(
        id=row["key_id"]["S"],
        tenant=row["tenant"]["S"],
        created_at=int(row["created_at"]["N"]),
        digest=bytes.fromhex(row["digest"]["S"]),
    )
