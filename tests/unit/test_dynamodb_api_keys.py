"""The store of API keys on DynamoDB, beyond the contract: its calls, repeats and faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from chalicelib.aws.dynamodb.api_keys import NUMBER_BYTES, DynamoDBApiKeyStore
from chalicelib.domain.api_key import ApiKey
from chalicelib.domain.errors import Unavailable
from tests.support.clock import START
from tests.support.dynamodb import TABLE, RecordingClient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY = ApiKey(id="a", tenant="acme", created_at=START, digest=bytes(range(32)))


@pytest.fixture
def store(client: RecordingClient) -> DynamoDBApiKeyStore:
    return DynamoDBApiKeyStore(cast("DynamoDBClient", client), TABLE)


def test_a_look_up_is_one_read(store: DynamoDBApiKeyStore, client: RecordingClient) -> None:
    store.add(KEY)
    client.calls.clear()
    store.find(KEY.digest)
    assert client.calls == ["get_item"]


def test_a_list_is_one_query(store: DynamoDBApiKeyStore, client: RecordingClient) -> None:
    store.list()
    assert client.calls == ["query"]


def test_a_repeated_put_adds_one_key(store: DynamoDBApiKeyStore, client: RecordingClient) -> None:
    client.repeat("put_item")
    store.add(KEY)
    assert list(store.list()) == [KEY]


def test_a_key_never_takes_the_place_of_another(store: DynamoDBApiKeyStore) -> None:
    store.add(KEY)
    neighbour = ApiKey(
        id="b",
        tenant="other",
        created_at=START,
        digest=KEY.digest[:NUMBER_BYTES] + bytes(32 - NUMBER_BYTES),
    )
    with pytest.raises(Unavailable):
        store.add(neighbour)
    assert store.find(KEY.digest) == KEY
    assert store.find(neighbour.digest) is None


def test_a_repeated_delete_revokes_the_key_it_found(
    store: DynamoDBApiKeyStore, client: RecordingClient
) -> None:
    store.add(KEY)
    client.repeat("delete_item")
    assert store.revoke(KEY.id) == KEY
    assert list(store.list()) == []


def test_without_the_table_every_operation_is_unavailable(dynamodb: DynamoDBClient) -> None:
    store = DynamoDBApiKeyStore(dynamodb, "timers-nowhere")
    for operation in (
        lambda: store.find(KEY.digest),
        lambda: store.add(KEY),
        store.list,
        lambda: store.revoke(KEY.id),
    ):
        with pytest.raises(Unavailable, match="no table timers-nowhere here: `make infra`"):
            operation()
