"""Large bodies and headers on AWS: an item of their own, from the create to the webhook."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.aws.dynamodb.key_items import KEPT_S
from chalicelib.aws.dynamodb.large_content import MAX_BYTES_IN_ROW
from chalicelib.domain.content import NO_CONTENT, Content
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.keyed import SetByKey
from chalicelib.domain.timer import Timer
from chalicelib.domain.webhook import Outcome
from tests.support.clock import START, ManualClock
from tests.support.dynamodb import TABLE
from tests.support.factories import DUE, TENANT, change_of, claimed, new_timer
from tests.support.moto_stage import MotoStage
from tests.support.sender import FakeSender

KEY = "order:1"
LARGE = Content(
    method="PUT", headers=(("X-A", "b" * 300),), body=b"\0\xff" * 32_768, content_type="a/b"
)


def set_large(stage: MotoStage, content: Content = LARGE, **values: Any) -> Timer:
    return stage.store.create(replace(new_timer(), content=content, **values))


def items(stage: MotoStage) -> list[dict[str, Any]]:
    """Return the items of large contents."""
    found: list[dict[str, Any]] = stage.dynamodb.scan(TableName=TABLE)["Items"]
    return [item for item in found if item["pk"]["S"].startswith("B#")]


def by_key(stage: MotoStage, content: Content, at: int = DUE) -> Timer:
    new = replace(new_timer(due_at=at), key=KEY, content=content)
    return stage.store.set_by_key(SetByKey(new=new)).timer


@pytest.mark.parametrize(
    "content",
    [
        LARGE,
        Content(body=b"x" * (MAX_BYTES_IN_ROW + 1)),
        Content(headers=(("X-A", "b" * 8_000),)),
    ],
    ids=["both", "body", "headers"],
)
def test_a_webhook_sends_the_whole_content(
    stage: MotoStage, clock: ManualClock, content: Content
) -> None:
    timer = set_large(stage, content)
    assert stage.store.get(TENANT, timer.id).content == content
    sender = FakeSender(clock)
    clock.now = DUE
    stage.delivery(sender).deliver(timer.wakeup())
    (call,) = sender.sent
    assert call.call.body == content.body
    assert call.call.headers.items() >= dict(content.headers).items()


def test_a_content_of_400_bytes_lies_in_the_row(stage: MotoStage) -> None:
    small = Content(body=b"x" * MAX_BYTES_IN_ROW)
    timer = set_large(stage, small)
    assert items(stage) == []
    assert stage.store.find_many(TENANT, [timer.id]) == [timer]


def test_a_row_of_an_older_version_has_its_content_itself(
    stage: MotoStage, clock: ManualClock
) -> None:
    timer = set_large(stage, NO_CONTENT)
    stage.dynamodb.update_item(
        TableName=TABLE,
        Key={"pk": {"S": f"T#{TENANT}#0"}, "id": {"N": str(timer.id)}},
        UpdateExpression="SET body = :body",
        ExpressionAttributeValues={":body": {"B": LARGE.body}},
    )
    assert claimed(stage.store, timer).content.body == LARGE.body


def test_no_webhook_is_sent_without_its_body(stage: MotoStage, clock: ManualClock) -> None:
    timer = set_large(stage)
    (item,) = items(stage)
    stage.dynamodb.delete_item(TableName=TABLE, Key={"pk": item["pk"], "id": item["id"]})
    sender = FakeSender(clock)
    clock.now = DUE
    with pytest.raises(Unavailable, match="content"):
        stage.delivery(sender).deliver(timer.wakeup())
    assert sender.sent == []
    assert stage.store.find_many(TENANT, [timer.id])[0].next_attempt_at == DUE


@pytest.mark.parametrize("attempts", [1, 3])
def test_every_attempt_sends_the_whole_content(
    stage: MotoStage, clock: ManualClock, attempts: int
) -> None:
    timer = set_large(stage)
    sender = FakeSender(clock, Outcome(status=503))
    for _ in range(attempts):
        wakeup = stage.store.get(TENANT, timer.id).wakeup()
        clock.now = wakeup.at
        stage.delivery(sender).deliver(wakeup)
    assert [call.call.body for call in sender.sent] == [LARGE.body] * attempts


def test_the_content_outlives_its_timer_wherever_that_is_moved(stage: MotoStage) -> None:
    timer = set_large(stage)
    (item,) = items(stage)
    kept_until = DUE // 1000 + 7 * 86_400 + KEPT_S
    assert int(item["expires_at"]["N"]) == kept_until
    far = START + 9 * 365 * 86_400_000
    stage.store.reschedule(change_of(timer, at=far))
    (item,) = items(stage)
    assert int(item["expires_at"]["N"]) >= far // 1000 + 7 * 86_400


def test_a_removed_timer_leaves_no_content(stage: MotoStage) -> None:
    stage.store.cancel(TENANT, set_large(stage).id, START)
    assert items(stage) == []
    set_large(stage)
    set_large(stage)
    assert stage.store.purge(TENANT, before=None, limit=100) is None
    assert items(stage) == []


def test_a_failure_to_remove_the_content_does_not_fail_the_cancel(
    stage: MotoStage, caplog: pytest.LogCaptureFixture
) -> None:
    timer = set_large(stage)

    def fail(operation: str) -> None:
        if operation == "BatchWriteItem":
            raise EndpointConnectionError(endpoint_url="https://dynamodb")

    stage.before_call = fail
    assert stage.store.cancel(TENANT, timer.id, START).id == timer.id
    assert "left to expire" in caplog.text


def test_a_keyed_timer_sends_what_was_set_last(stage: MotoStage, clock: ManualClock) -> None:
    other = replace(LARGE, body=b"other" * 1_000)
    timer = by_key(stage, LARGE)
    for content in (other, NO_CONTENT, LARGE, other):
        assert by_key(stage, content, DUE + 1).id == timer.id
        assert stage.store.get(TENANT, timer.id).content == content
    assert len(items(stage)) == 2
    stage.store.cancel(TENANT, timer.id, START)
    assert items(stage) == []


def test_a_set_that_another_overtook_changes_no_content(stage: MotoStage) -> None:
    timer = by_key(stage, LARGE)
    # Written by a request that dies before its row, or that loses to another one.
    lost = replace(LARGE, body=b"lost" * 1_000)

    def die(operation: str) -> None:
        if operation == "UpdateItem":
            raise KeyboardInterrupt

    stage.before_call = die
    with pytest.raises(KeyboardInterrupt):
        by_key(stage, lost)
    stage.before_call = lambda _operation: None
    assert len(items(stage)) == 2
    assert stage.store.get(TENANT, timer.id).content == LARGE


def test_a_create_that_dies_before_its_row_leaves_an_item_that_expires(stage: MotoStage) -> None:
    puts: list[str] = []

    def die(operation: str) -> None:
        puts.extend([operation] if operation == "PutItem" else [])
        if len(puts) == 2:
            raise KeyboardInterrupt

    stage.store.create(new_timer())
    stage.before_call = die
    with pytest.raises(KeyboardInterrupt):
        set_large(stage)
    stage.before_call = lambda _operation: None
    (item,) = items(stage)
    assert "expires_at" in item
