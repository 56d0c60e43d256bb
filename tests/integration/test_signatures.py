"""Receivers verify the webhooks of each engine with the library of Standard Webhooks."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import webhooks
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chalicelib.aws.sender import RequestsSender
from chalicelib.bootstrap import engine_options
from chalicelib.domain.errors import InvalidSettings, Unavailable
from chalicelib.domain.signing import read_secrets, write_secret
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.target import prepare
from chalicelib.embedded import dispatcher
from chalicelib.embedded.egress import EgressLimits
from chalicelib.embedded.sender import HttpSender
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from chalicelib.service.attempt import DeliveryPolicy
from chalicelib.settings import load
from infra.package import ROOT
from tests.contract.socket_receiver import Receiver, Request
from tests.support.clock import START, ManualClock
from tests.support.delivery import delivery_of
from tests.support.factories import LEASE_MS, new_timer, set_timer
from tests.support.loop import until
from tests.support.moto_stage import MotoStage
from tests.support.sender import FakeSender
from tests.support.stores import FakeArmableStore, FakeWakingStore
from tests.support.wakeups import RecordingWakeups

OLD, NEW = write_secret(b"o" * 24), write_secret(b"n" * 64)
OPEN = Guard(allow_private=True)
AMPLE_S = 5.0

Headers = dict[str, str]


class ReceiversClock(datetime):
    """The clock of the receivers, ``ahead`` of the time at which tests begin."""

    __test__ = False
    ahead = timedelta(0)

    @classmethod
    def now(cls, tz: Any = None) -> ReceiversClock:
        return cls.fromtimestamp(START / 1000, tz) + cls.ahead


@pytest.fixture(autouse=True)
def receivers_clock(monkeypatch: pytest.MonkeyPatch) -> type[ReceiversClock]:
    """Give the library the tests' time: it has no parameter for a clock."""
    monkeypatch.setattr(webhooks, "datetime", ReceiversClock)
    monkeypatch.setattr(ReceiversClock, "ahead", timedelta(0))
    return ReceiversClock


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    listening = Receiver()
    yield listening
    listening.close()


def sent_by_aws(receiver: Receiver, keys: Sequence[bytes]) -> Request:
    """Return the request that the delivery and the sender of the AWS engine make."""
    rows, sender = FakeArmableStore(), RequestsSender(AMPLE_S, OPEN)
    timer = set_timer(
        FakeWakingStore(rows), url=f"http://127.0.0.1:{receiver.port}/a", due_at=START
    )
    wakeups = RecordingWakeups()
    made = delivery_of(rows, wakeups, sender, ManualClock(), signing_keys=lambda: keys)
    made.deliver(timer.wakeup())
    assert (wakeups.registered, wakeups.forgotten) == ([], [])
    sender.close()
    rows.close()
    return receiver.requests[-1]


def sent_by_embedded(receiver: Receiver, keys: Sequence[bytes]) -> Request:
    """Return the request that the dispatcher and the sender of the embedded engine make."""
    before = len(receiver.requests)

    async def run() -> None:
        writer, sender = Writer(SQLiteTimerStore.in_memory()), HttpSender(AMPLE_S, OPEN)
        new = new_timer(url=f"http://127.0.0.1:{receiver.port}/a", due_at=START)
        await writer.submit(lambda: writer.store.create(new), durable=True)
        policy = dispatcher.DispatcherPolicy(
            lease_ms=LEASE_MS,
            retry_delays_s=(),
            retention_days=1.0,
            egress=EgressLimits(max_in_flight=1),
            signing_keys=lambda: keys,
        )
        at_work = dispatcher.Dispatcher(
            writer, sender, policy, ManualClock(), random=lambda: 0.0, token=lambda: "token"
        )
        job = asyncio.create_task(at_work.run())
        await until(lambda: len(receiver.requests) > before)
        await at_work.stop(grace_s=AMPLE_S)
        await job
        await writer.close()
        await sender.close()

    asyncio.run(run())
    return receiver.requests[-1]


ENGINES = {"aws": sent_by_aws, "embedded": sent_by_embedded}

Send = Callable[..., Request]


@pytest.fixture(params=ENGINES)
def send(request: pytest.FixtureRequest, receiver: Receiver) -> Send:
    """Return a function that sends one webhook with these secrets and returns its request."""

    def sending(*secrets: str) -> Request:
        return ENGINES[request.param](receiver, read_secrets(" ".join(secrets)))

    return sending


def verified(secret: str, request: Request, **changed: str) -> bool:
    headers = request.headers | {name.replace("_", "-"): text for name, text in changed.items()}
    try:
        Webhook(secret).verify(request.body, headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def test_the_receivers_own_library_verifies_an_empty_webhook(send: Send) -> None:
    request = send(OLD)
    assert request.body == b""
    assert verified(OLD, request)


def test_old_and_new_secret_verify_during_a_rotation_and_the_new_alone_after_it(
    send: Send,
) -> None:
    during = send(NEW, OLD)
    assert verified(OLD, during)
    assert verified(NEW, during)
    after = send(NEW)
    assert not verified(OLD, after)
    assert verified(NEW, after)


def test_a_changed_webhook_does_not_verify(send: Send) -> None:
    request = send(OLD)
    webhook_id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    assert not verified(OLD, request, webhook_id=webhook_id.removesuffix("1") + "2")
    assert not verified(OLD, request, webhook_timestamp=str(int(timestamp) + 1))
    assert not verified(OLD, Request(request.raw + b"x", request.connection))
    assert not verified(OLD, request, webhook_signature="v1,")


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_webhook_of_another_time_does_not_verify(
    send: Send, receivers_clock: type[ReceiversClock], minutes: int
) -> None:
    request = send(OLD)
    receivers_clock.ahead = timedelta(minutes=minutes)
    assert not verified(OLD, request)


def test_without_a_secret_nothing_is_signed(send: Send) -> None:
    assert "webhook-signature" not in send().headers


# The receiver's side as the guide shows it


@pytest.fixture
def is_genuine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Headers, bytes], bool]:
    """Return the verifying function from the guide, with the old secret."""
    monkeypatch.setenv("WEBHOOK_SECRET", OLD)  # the code of the guide reads it
    guide = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    section = guide.partition("\n## Signatures\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    receiver_side: dict[str, Any] = {}
    exec(found[1], receiver_side)
    made: Callable[[Headers, bytes], bool] = receiver_side["is_genuine"]
    return made


def test_the_receiver_of_the_guide_accepts_signed_webhooks(
    send: Send, is_genuine: Callable[[Headers, bytes], bool]
) -> None:
    for secrets in ((OLD,), (NEW, OLD)):
        request = send(*secrets)
        assert is_genuine(request.headers, request.body)


def test_the_receiver_of_the_guide_refuses_everything_else(
    send: Send, is_genuine: Callable[[Headers, bytes], bool]
) -> None:
    request = send(OLD)
    for name, text in (
        ("webhook-id", "store.default.2"),
        ("webhook-timestamp", "0"),
        ("webhook-timestamp", "soon"),
        ("webhook-signature", "v1,AAAA"),
        ("webhook-signature", "v1,not base64"),
        ("webhook-signature", "nonsense"),
        ("webhook-signature", ""),
    ):
        assert not is_genuine(request.headers | {name: text}, b""), (name, text)
    assert not is_genuine(request.headers, b"x")
    assert not is_genuine(request.headers, b"\xff")
    assert not is_genuine({}, b"")
    assert not is_genuine(send(NEW).headers, b"")
    assert not is_genuine(send().headers, b"")


# Where a secret must not be seen


def seen(*things: object) -> str:
    """Return every text in which a log or a debugger would show these."""
    return " ".join(f"{thing!s} {thing!r}" for thing in things)


def shown_of(error: BaseException) -> str:
    return seen(error) + "".join(traceback.format_exception(error))


def assert_hidden(text: str, *secrets: str) -> None:
    """Check that ``text`` has no form of a secret."""
    for secret in secrets:
        encoded = secret.removeprefix("whsec_")
        key = base64.b64decode(encoded)
        for form in (encoded, repr(key), key.hex(), key.decode("latin-1")):
            assert form not in text


def test_no_repr_shows_a_secret(monkeypatch: pytest.MonkeyPatch, stage: MotoStage) -> None:
    settings = load({"TIMERS_SIGNING_SECRETS": f"{NEW} {OLD}"})
    options = engine_options(settings)
    keys = read_secrets(f"{NEW} {OLD}")
    assert options.signing_keys == keys
    stage.put_secrets(f"{NEW} {OLD}")
    from_ssm = stage.signing_secrets()
    from_ssm()
    timer = set_timer(stage.store)
    assert_hidden(
        seen(
            settings,
            options,
            from_ssm,
            DeliveryPolicy(lease_ms=1, retry_delays_s=(), signing_keys=lambda: keys),
            DeliveryPolicy(lease_ms=1, retry_delays_s=(), signing_keys=from_ssm),
            (call := prepare(timer, "store", START, keys)),
            call.headers,
        ),
        OLD,
        NEW,
    )


def test_no_refused_setting_shows_a_secret(tmp_path: Any) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(f"{OLD}\n{NEW}\xff".encode("latin-1"))
    for environment in (
        {"TIMERS_SIGNING_SECRETS": f"{OLD} {NEW}!"},
        {"TIMERS_SIGNING_SECRETS": f"{OLD} {NEW.removeprefix('whsec_')}"},
        {"TIMERS_SIGNING_SECRETS": OLD, "TIMERS_SIGNING_SECRETS_FILE": str(file)},
        {"TIMERS_SIGNING_SECRETS_FILE": str(file)},
    ):
        with pytest.raises(InvalidSettings) as refused:
            load(environment)
        assert_hidden(shown_of(refused.value), OLD, NEW)


def test_no_log_of_deliveries_shows_a_secret(
    stage: MotoStage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="chalicelib")
    timers = [set_timer(stage.store, due_at=START) for _ in range(3)]
    stage.put_secrets(f"{NEW} {OLD} spoilt")
    keys = stage.signing_secrets()
    with pytest.raises(Unavailable) as refused:
        keys()
    deliver = stage.delivery(FakeSender(clock), signing_keys=keys).deliver_all
    deliver([timers[0].wakeup()])
    stage.put_secrets(f"{NEW} {OLD}")
    clock.advance(5_000)
    deliver([timers[1].wakeup()])
    stage.fail("GetParameter")
    clock.advance(300_000)
    deliver([timers[2].wakeup()])

    assert len(caplog.records) >= 3
    assert_hidden(caplog.text + shown_of(refused.value), OLD, NEW)
