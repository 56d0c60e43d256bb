"""The contract of every store of API keys."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import KeyNotFound
from chalicelib.service.ports import ApiKeyStore
from tests.support.clock import START


def key(name: str, tenant: str = "acme", digest: bytes | None = None) -> ApiKey:
    return ApiKey(
        id=name,
        tenant=tenant,
        created_at=START,
        digest=digest or hashlib.sha256(name.encode()).digest(),
    )


def ids(store: ApiKeyStore) -> set[str]:
    return {each.id for each in store.list()}


def test_an_empty_store_has_no_key(key_store: ApiKeyStore) -> None:
    assert list(key_store.list()) == []
    assert key_store.find(key("a").digest) is None
    with pytest.raises(KeyNotFound):
        key_store.revoke("a")


def test_a_key_is_found_as_it_was_added(key_store: ApiKeyStore) -> None:
    for added in (key("a", "acme"), key("b", "other")):
        key_store.add(added)
        assert key_store.find(added.digest) == added


def test_a_key_is_found_by_its_whole_hash_only(key_store: ApiKeyStore) -> None:
    digest = bytes(range(32))
    key_store.add(key("a", digest=digest))
    for position in range(32):
        other = bytearray(digest)
        other[position] ^= 1
        assert key_store.find(bytes(other)) is None


@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32, bytes(31) + b"\x01", b"\x01" * 32])
def test_every_hash_has_a_place(key_store: ApiKeyStore, digest: bytes) -> None:
    key_store.add(key("a", digest=digest))
    assert key_store.find(digest) == key("a", digest=digest)
    assert key_store.revoke("a") == key("a", digest=digest)
    assert key_store.find(digest) is None


def test_all_keys_are_listed(key_store: ApiKeyStore) -> None:
    added = [key(f"k{number}", f"tenant-{number % 3}") for number in range(30)]
    for each in added:
        key_store.add(each)
    assert sorted(key_store.list(), key=lambda each: each.id) == sorted(
        added, key=lambda each: each.id
    )


def test_a_list_is_as_long_as_it_takes(key_store: ApiKeyStore) -> None:
    """More than the megabyte that DynamoDB returns at once."""
    for number in range(20):
        key_store.add(key(f"k{number}", "t" * 60_000))
    assert len(ids(key_store)) == 20


def test_a_revoked_key_is_gone_and_the_others_stay(key_store: ApiKeyStore) -> None:
    for name in "abc":
        key_store.add(key(name))

    assert key_store.revoke("b") == key("b")

    assert key_store.find(key("b").digest) is None
    assert ids(key_store) == {"a", "c"}
    assert key_store.find(key("a").digest) == key("a")


@pytest.mark.parametrize("name", ["b", "", "A", "a' OR '1'='1", "%", "x" * 10_000, "\x00"])
def test_an_unknown_name_revokes_nothing(key_store: ApiKeyStore, name: str) -> None:
    key_store.add(key("a"))
    with pytest.raises(KeyNotFound) as refusal:
        key_store.revoke(name)
    assert len(refusal.value.detail) < 200
    assert ids(key_store) == {"a"}


def test_a_key_is_revoked_once(key_store: ApiKeyStore) -> None:
    key_store.add(key("a"))
    key_store.revoke("a")
    with pytest.raises(KeyNotFound):
        key_store.revoke("a")


def test_keys_may_be_added_and_looked_up_side_by_side(key_store: ApiKeyStore) -> None:
    def add(number: int) -> ApiKey | None:
        added = key(f"k{number}")
        key_store.add(added)
        return key_store.find(added.digest)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(add, range(40)))
    assert found == [key(f"k{number}") for number in range(40)]
    assert len(ids(key_store)) == 40
