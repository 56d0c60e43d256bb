"""API keys as text: format, hash and tenant names."""

from __future__ import annotations

import hashlib

import pytest

from chalicelib.domain import api_key
from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import InvalidTenant, Unauthorized

TEXT = "wt_" + "aZ09_-" * 7 + "x"


def test_a_key_has_a_prefix_and_all_of_its_random_bytes() -> None:
    assert api_key.encode(bytes(32)) == "wt_" + "A" * 43
    assert api_key.encode(b"\xff" * 32) == "wt_" + "_" * 42 + "8"
    assert len({api_key.encode(bytes(31) + bytes([last])) for last in range(256)}) == 256


def test_every_key_that_is_written_can_be_read() -> None:
    for last in range(256):
        text = api_key.encode(bytes([last]) * 32)
        assert api_key.parse_bearer(f"Bearer {text}") == text


def test_the_stored_digest_is_the_sha256_of_the_key_as_sent() -> None:
    assert api_key.digest_of(TEXT) == hashlib.sha256(TEXT.encode()).digest()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize(("between", "after"), [(" ", ""), ("    ", ""), (" ", "    ")])
def test_the_scheme_is_read_in_any_case_and_spacing(scheme: str, between: str, after: str) -> None:
    assert api_key.parse_bearer(f"{scheme}{between}{TEXT}{after}") == TEXT


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        TEXT,
        f"Bearer{TEXT}",
        f"Basic {TEXT}",
        f"Bearer\t{TEXT}",
        f" Bearer {TEXT}",
        f"Bearer {TEXT}x",
        f"Bearer {TEXT[:-1]}",
        f"Bearer {TEXT}=",
        f"Bearer {TEXT}\n",
        f"Bearer     {TEXT}",
        f"Bearer {TEXT}     ",
        "Bearer" + " " * 8_000 + TEXT,
        f"Bearer {TEXT} {TEXT}",
        f"Bearer {TEXT}, Bearer {TEXT}",
        f"Bearer {TEXT.upper()}",
        f"Bearer {TEXT[:-1]}+",
        f"Bearer {TEXT[:-1]}é",
        f"Bearer {TEXT[:-1]}\u0661",
        f"B\u0435arer {TEXT}",
        f"Bearer Wt_{TEXT[3:]}",
        f"Bearer {TEXT[3:]}",
        "Bearer " + "x" * 100_000,
        "Bearer" + " " * 100_000,
        "\x00",
    ],
)
def test_a_text_that_cannot_be_a_key_is_refused(header: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        api_key.parse_bearer(header)
    assert refusal.value.detail == "Send a key that is not revoked: Authorization: Bearer wt_..."


@pytest.mark.parametrize("name", ["a", "0", "acme", "a-1", "0-", "a" * 63])
def test_a_valid_tenant_name_is_accepted(name: str) -> None:
    assert api_key.check_tenant_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        "-a",
        "A",
        "a_b",
        "a b",
        "a#b",
        "a.b",
        "a/b",
        "a" * 64,
        "é",
        "a\n",
        "\u0661",
        "a\x00",
    ],
)
def test_an_invalid_tenant_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidTenant):
        api_key.check_tenant_name(name)


def test_a_key_does_not_show_its_hash() -> None:
    digest = bytes(range(32))
    kept = ApiKey(id="a", tenant="acme", created_at=0, digest=digest)
    assert repr(digest) not in repr(kept)
    assert digest.hex() not in repr(kept)
    assert kept.matches(digest)
    assert not kept.matches(digest[:-1])
