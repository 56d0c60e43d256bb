"""What a request does when AWS refuses or loses a call: bounded tries, and no timer in secret."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from chalicelib.aws.clients import Clients
from chalicelib.aws.names import Names
from chalicelib.aws.wakeups import AwsWakeups
from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import MAX_NEAR_S
from tests.support.clock import START, ManualClock
from tests.support.factories import TENANT, new_timer
from tests.support.moto_stage import MotoStage

FAR = START + 2 * MAX_NEAR_S * 1000


class Throttling:
    """An endpoint of AWS that answers 429 to every call, and counts them by operation."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        calls = self.calls

        class Handler(http.server.BaseHTTPRequestHandler):
            def _refuse(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target = self.headers.get("X-Amz-Target", f"{self.command} {self.path}")
                calls[target.rpartition(".")[2]] += 1
                body = json.dumps({"__type": "ThrottlingException", "message": "slow down"})
                self.send_response(429)
                self.send_header("x-amzn-ErrorType", "ThrottlingException")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_DELETE = _refuse  # noqa: N815 (http.server looks for these)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def throttling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Throttling]:
    endpoint = Throttling()
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield endpoint
    endpoint.close()


def test_a_throttled_schedule_is_tried_once_and_the_timer_is_left_to_the_sweeper(
    stage: MotoStage, clock: ManualClock, throttling: Throttling
) -> None:
    clients = Clients()
    wakeups = AwsWakeups(stage.sqs, lambda: clients.scheduler, Names("test"), clock)
    wakeups.backlog()  # looks the queue up
    store = WakingTimerStore(stage.rows, wakeups, clock)
    timer = store.create(new_timer(due_at=FAR))
    assert sum(throttling.calls.values()) == 1
    assert not stage.is_armed(timer)


@pytest.mark.parametrize("service", ["dynamodb", "sqs", "scheduler", "ssm"])
def test_a_call_that_is_throttled_is_tried_three_times_at_most(
    throttling: Throttling, service: str
) -> None:
    clients = Clients()
    calls: dict[str, Callable[[], object]] = {
        "dynamodb": clients.dynamodb.list_tables,
        "sqs": clients.sqs.list_queues,
        "scheduler": clients.scheduler.list_schedules,
        "ssm": clients.ssm.describe_parameters,
    }
    with pytest.raises(Exception, match="Throttling"):
        calls[service]()
    assert sum(throttling.calls.values()) == (3 if service in ("dynamodb", "sqs") else 1)


@pytest.fixture
def lost_puts(stage: MotoStage) -> Iterator[None]:
    def lose(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    stage.dynamodb.meta.events.register_last("after-call.dynamodb.PutItem", lose)
    yield
    stage.dynamodb.meta.events.unregister("after-call.dynamodb.PutItem", lose)


@pytest.mark.usefixtures("lost_puts")
def test_a_create_whose_response_was_lost_is_looked_up_and_acknowledged(
    stage: MotoStage,
) -> None:
    timer = stage.waking_store().create(new_timer())
    assert stage.rows.get(TENANT, timer.id) == timer


@pytest.mark.usefixtures("lost_puts")
def test_a_create_that_cannot_be_looked_up_says_that_it_may_have_been_carried_out(
    stage: MotoStage,
) -> None:
    def refuse(operation: str) -> None:
        if operation == "GetItem":
            raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    stage.before_call = refuse
    with pytest.raises(Unavailable, match="may have been carried out"):
        stage.waking_store().create(new_timer())


def test_a_create_that_was_refused_says_nothing_of_the_kind(stage: MotoStage) -> None:
    def refuse(operation: str) -> None:
        if operation == "PutItem":
            raise stage.dynamodb.exceptions.ClientError(
                {"Error": {"Code": "ThrottlingException", "Message": ""}}, operation
            )

    stage.before_call = refuse
    with pytest.raises(Unavailable) as refusal:
        stage.waking_store().create(new_timer())
    assert "carried out" not in refusal.value.detail
