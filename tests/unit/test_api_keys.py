"""The use cases of API keys: issue, look up, list and revoke."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from chalicelib.domain import api_key
from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import InvalidTenant, KeyNotFound, Unauthorized
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.service.api_keys import ApiKeys
from tests.support.clock import START, ManualClock

UNKNOWN = "Bearer " + api_key.encode(b"\xee" * 32)


class RecordingKeyStore(SQLiteApiKeyStore):
    """Counts its look-ups. While ``mistaken``, it returns the wrong key."""

    def __init__(self, folder: DataFolder) -> None:
        super().__init__(folder)
        self.lookups = 0
        self.mistaken = False

    def find(self, digest: bytes) -> ApiKey | None:
        self.lookups += 1
        return super().list()[0] if self.mistaken else super().find(digest)


@pytest.fixture
def store(tmp_path: Path) -> RecordingKeyStore:
    return RecordingKeyStore(DataFolder(tmp_path))


@pytest.fixture
def api_keys(store: RecordingKeyStore, clock: ManualClock) -> ApiKeys:
    """Return the use cases, with random bytes that are 00 00 …, 01 01 …, 02 02 …."""
    drawn = itertools.count()
    return ApiKeys(store, clock, lambda count: bytes([next(drawn)]) * count)


def bearer(text: str) -> str:
    return f"Bearer {text}"


def test_a_key_authenticates_its_tenant(api_keys: ApiKeys) -> None:
    acme, other = api_keys.issue("acme"), api_keys.issue("other")
    assert acme.text != other.text
    assert api_keys.tenant_of(bearer(acme.text)) == "acme"
    assert api_keys.tenant_of(bearer(other.text)) == "other"


def test_a_tenant_may_have_several_keys(api_keys: ApiKeys) -> None:
    first, second = api_keys.issue("acme"), api_keys.issue("acme")
    api_keys.revoke(first.key.id)
    assert api_keys.tenant_of(bearer(second.text)) == "acme"
    with pytest.raises(Unauthorized):
        api_keys.tenant_of(bearer(first.text))


def test_a_key_has_256_random_bits_and_a_separate_random_id(
    store: RecordingKeyStore,
) -> None:
    drawn: list[bytes] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(bytes([len(drawn)]) * count)
        return drawn[-1]

    issued = ApiKeys(store, ManualClock(), random_bytes).issue("acme")
    assert [len(part) for part in drawn] == [32, 5]
    assert issued.text == api_key.encode(drawn[0])
    assert issued.key.id == "aeaqcaib"


def test_only_the_hash_of_a_key_is_kept_and_nothing_shows_the_key(
    api_keys: ApiKeys, tmp_path: Path
) -> None:
    issued = api_keys.issue("acme")
    assert issued.text.encode() not in (tmp_path / "keys.db").read_bytes()
    assert api_key.digest_of(issued.text) in (tmp_path / "keys.db").read_bytes()
    assert issued.text not in repr(issued)


@pytest.mark.parametrize("name", ["", "Acme", "a b", "-a", "a#1"])
def test_no_key_is_made_for_an_invalid_tenant(api_keys: ApiKeys, name: str) -> None:
    with pytest.raises(InvalidTenant):
        api_keys.issue(name)
    assert list(api_keys.list()) == []


def test_keys_are_listed_oldest_first(api_keys: ApiKeys, clock: ManualClock) -> None:
    issued = []
    for tenant in ("c", "a", "b"):
        issued.append(api_keys.issue(tenant).key)
        clock.advance(1_000)
    assert list(api_keys.list()) == issued
    assert [each.created_at for each in issued] == [START, START + 1_000, START + 2_000]


def test_an_unknown_key_is_unauthorized(api_keys: ApiKeys) -> None:
    api_keys.issue("acme")
    with pytest.raises(Unauthorized):
        api_keys.tenant_of(UNKNOWN)


def test_an_unknown_id_revokes_nothing(api_keys: ApiKeys) -> None:
    issued = api_keys.issue("acme")
    for name in ("", "nobody", issued.text, "acme"):
        with pytest.raises(KeyNotFound):
            api_keys.revoke(name)
    assert api_keys.tenant_of(bearer(issued.text)) == "acme"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic eDp5", UNKNOWN[:-1]])
def test_a_text_that_cannot_be_a_key_is_not_looked_up(
    api_keys: ApiKeys, store: RecordingKeyStore, header: str
) -> None:
    with pytest.raises(Unauthorized):
        api_keys.tenant_of(header)
    assert store.lookups == 0


def test_a_store_that_returns_another_key_authenticates_nobody(
    api_keys: ApiKeys, store: RecordingKeyStore
) -> None:
    issued = api_keys.issue("acme")
    store.mistaken = True
    assert api_keys.tenant_of(bearer(issued.text)) == "acme"
    with pytest.raises(Unauthorized):
        api_keys.tenant_of(UNKNOWN)


def test_a_tenants_first_key_is_made_once(api_keys: ApiKeys) -> None:
    api_keys.issue("other")
    first = api_keys.issue_first("default")
    assert first
    assert api_keys.tenant_of(bearer(first.text)) == "default"
    assert api_keys.issue_first("default") is None
    assert tenants(api_keys.list()) == ["default", "other"]


def tenants(keys: Sequence[ApiKey]) -> list[str]:
    return sorted(each.tenant for each in keys)
