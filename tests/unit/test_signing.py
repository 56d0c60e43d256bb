"""Signatures of webhooks, and the text of signing secrets."""

from __future__ import annotations

import base64
from datetime import datetime, timezone

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chalicelib.domain.signing import PREFIX, read_secret, read_secrets, signature, write_secret
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Timer

OLD = PREFIX + base64.b64encode(b"o" * 24).decode()
NEW = PREFIX + base64.b64encode(b"n" * 64).decode()


def headers(*secrets: str) -> dict[str, str]:
    timer = Timer(tenant="default", id=7, url="https://h/a", created_at=0, due_at=0)
    now = int(datetime.now(timezone.utc).timestamp() * 1000)
    return prepare(timer, "store", now, [read_secret(secret) for secret in secrets]).headers


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_the_receivers_own_library_verifies_an_empty_body(secret: str) -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        # The signature holds; the library then fails to read the empty body as JSON.
        Webhook(secret).verify(b"", headers(secret))


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_during_a_rotation_both_secrets_verify(secret: str) -> None:
    timestamp = int(datetime.now(timezone.utc).timestamp())
    signed = {
        "webhook-id": "id",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(
            [read_secret(OLD), read_secret(NEW)], "id", timestamp, b'{"a": 1}'
        ),
    }
    assert Webhook(secret).verify(b'{"a": 1}', signed) == {"a": 1}


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(b"", headers(OLD))


def test_a_changed_id_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(b"", headers(OLD) | {"webhook-id": "store.default.8"})


def test_without_a_secret_nothing_is_signed() -> None:
    assert "webhook-signature" not in headers()


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_that_is_written_is_the_one_that_is_read(size: int) -> None:
    key = bytes(range(size))
    assert read_secret(write_secret(key)) == key


def test_secrets_keep_their_order_whatever_blanks_are_between_them() -> None:
    assert read_secrets(f"  {NEW}\n\t{OLD} ") == (read_secret(NEW), read_secret(OLD))
    assert read_secrets(" \n") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        PREFIX,
        PREFIX + "not base64!",
        PREFIX + "é" * 32,
        PREFIX + base64.b64encode(b"x" * 23).decode(),
        PREFIX + base64.b64encode(b"x" * 65).decode(),
    ],
)
def test_an_invalid_secret_is_refused_and_never_shown(text: str) -> None:
    with pytest.raises(ValueError, match="signing secret") as refusal:
        read_secret(text)
    hidden = text.removeprefix(PREFIX)
    assert not hidden or hidden == "secret" or hidden not in str(refusal.value)
