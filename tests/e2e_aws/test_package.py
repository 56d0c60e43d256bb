"""The package on an emulator of AWS: its stacks, API, queue, schedules and Lambda functions.

The emulator runs the Lambdas with this machine's Python, so the package is made for Linux on this
processor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks.webhooks import Webhook

from infra.account import Account
from infra.deploy import Deployment
from infra.errors import DeployError
from infra.keys import api_keys_of, first_key
from infra.package import TEMPLATE_FILE, ZIP_FILE, package
from local.emulator.environment import CLIENT_DEFAULTS
from local.emulator.ministack import Emulator
from tests.e2e.receiver import Receiver
from tests.e2e.scenarios import assert_only_a_new_timer_fires, cancel
from tests.e2e.server import Client, Response, free_port
from tests.e2e_aws.conftest import skip_offline
from tests.e2e_aws.stage import Stage
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the libraries in a package are those of Lambda: Linux"
)

STAGE = "dev"
NEAR_S = 20
SETTINGS = {"TIMERS_NEAR_LIMIT": str(NEAR_S), "TIMERS_SEND_TIMEOUT": "1"}
LEASE_S = 12.0
"""What a send timeout of a second makes of the lease, and so of the sweeper's grace."""

PATIENCE_S = 60.0
ON_TIME_S = 2.5

EVERY_MINUTE = {
    "version": "0",
    "id": "89d1a02d-5ec7-412e-82f5-13505f849b41",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "000000000000",
    "time": "2026-11-24T00:00:00Z",
    "region": CLIENT_DEFAULTS["AWS_DEFAULT_REGION"],
    "resources": [],
    "detail": {},
}
"""What EventBridge sends the sweeper."""


class Api(Client):
    """The API behind API Gateway, where every path begins with the stage's, for one caller."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        assert parts.port
        super().__init__(parts.port)
        self._url = url
        self._path = parts.path
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def with_key(self, key: str | None) -> Api:
        """Return the same API for another caller."""
        return Api(self._url, key)

    def request(self, method: str, path: str, *arguments: Any, **options: Any) -> Response:
        with_key = {"headers": self._headers, **options}
        return super().request(method, self._path + path, *arguments, **with_key)

    def set_timer(self, url: str, seconds: int) -> int:
        response = self.request("POST", "/timers", {"seconds": seconds, "url": url})
        assert response.status == 201, response
        timer_id: int = response.json()["id"]
        assert response.headers["Location"] == f"/{STAGE}/timers/{timer_id}"
        return timer_id

    def status(self, timer_id: int) -> str:
        found = {timer["id"]: timer for timer in self.request("GET", "/timers").json()}
        status: str = found[timer_id]["status"]
        return status


@pytest.fixture(scope="module")
def emulator(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("emulator"), free_port())
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package of the stage."""
    folder = tmp_path_factory.mktemp("package")
    try:
        package(STAGE, folder, for_this_machine=True)
    except DeployError as error:
        skip_offline(f"no package can be made, as without a network: {error}")
        raise
    template = json.loads((folder / TEMPLATE_FILE).read_text())
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["Environment"]["Variables"] |= SETTINGS
    (folder / TEMPLATE_FILE).write_text(json.dumps(template))
    return folder


@pytest.fixture(scope="module")
def deployment(emulator: Emulator) -> Iterator[Deployment]:
    """Return the deployment of the stage on the emulator, with its keys and secrets."""
    with pytest.MonkeyPatch.context() as patch:
        # boto3 reads credentials and the address of the emulator from the environment.
        for name, value in CLIENT_DEFAULTS.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", emulator.address)
        yield Deployment(Account.current(), STAGE, print, poll_s=0.1)


@pytest.fixture(scope="module")
def secret(deployment: Deployment) -> str:
    """Return the secret that signs the webhooks of the stage."""
    shown: list[str] = []
    deployment.secrets.rotate(shown.append)
    return shown[0]


@pytest.fixture(scope="module")
def api(deployment: Deployment, made: Path, secret: str) -> Iterator[Api]:
    """Return the API of the stage, deployed with CloudFormation, for who has its first key."""
    deployment.make_resources()
    url = deployment.deploy_package(made / TEMPLATE_FILE, made / ZIP_FILE)
    issued = first_key(deployment.account, STAGE)
    assert issued
    api = Api(url, issued.text)
    yield api
    api.close()


@pytest.fixture
def stage(emulator: Emulator, api: Api) -> Stage:
    return Stage(emulator.address, STAGE)


def test_a_near_timer_fires_from_lambda(api: Api, receiver: Receiver, secret: str) -> None:
    before = time.time()
    timer_id = api.set_timer(receiver.url("ok/path?key=v"), 2)
    last_set = time.time()

    assert api.time_left(timer_id) in (1, 2)
    (arrival,) = receiver.wait_for(1)
    assert arrival.request_line == f"POST /ok/path/{timer_id}?key=v HTTP/1.1"
    assert before + 2 <= arrival.at <= last_set + 2 + ON_TIME_S
    assert arrival.body == b""
    assert arrival.header("webhook-id")
    Webhook(secret).verify(arrival.body, dict(arrival.headers), json_parse=False)
    assert eventually(lambda: api.status(timer_id) == "fired")
    assert api.time_left(timer_id) == 0


def test_errors_behind_api_gateway_have_the_same_body(api: Api) -> None:
    for method, path, body, status in (
        ("GET", "/timers/4711", None, 404),
        ("GET", "/timers/7abc", None, 404),
        ("POST", "/timers", {"minuets": 1, "url": "https://h"}, 422),
    ):
        response = api.request(method, path, body)
        assert response.status == status
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == status


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("wt_" + 43 * "A", 403), ("nonsense", 403)]
)
def test_without_a_good_key_the_gateway_lets_nothing_through(
    api: Api, key: str | None, status: int
) -> None:
    """The emulator runs authorizers, but ignores the gateway's responses in an API's document.

    So the status is the gateway's own: that 403 is a 401 of ours is checked in the template.
    """
    before = api.request("GET", "/timers").json()
    other = api.with_key(key)
    for method, path, body in (
        ("POST", "/timers", {"seconds": 3600, "url": "https://h"}),
        ("GET", "/timers", None),
        ("GET", "/timers/1", None),
        ("DELETE", "/timers", None),
    ):
        assert other.request(method, path, body).status == status
    assert other.request("GET", "/health").status == 200
    assert api.request("GET", "/timers").json() == before
    other.close()


def test_a_tenant_sees_its_own_timers_only(api: Api, deployment: Deployment) -> None:
    timer_id = api.set_timer("https://h", 3600)
    issued = api_keys_of(deployment.account, STAGE).issue("acme")
    acme = api.with_key(issued.text)
    assert acme.request("GET", "/timers").json() == []
    assert acme.request("GET", f"/timers/{timer_id}").status == 404
    assert acme.request("DELETE", f"/timers/{timer_id}").status == 404
    assert api.time_left(timer_id) > 0
    assert api.request("DELETE", f"/timers/{timer_id}").status == 204
    acme.close()


def test_the_authorizer_names_the_tenant_of_a_key_until_it_is_revoked(
    api: Api, deployment: Deployment, stage: Stage
) -> None:
    keys = api_keys_of(deployment.account, STAGE)
    issued = keys.issue("acme")
    event = {
        "type": "TOKEN",
        "authorizationToken": f"Bearer {issued.text}",
        "methodArn": f"arn:aws:execute-api:us-east-1:000000000000:api/{STAGE}/GET/timers",
    }
    said, error = stage.invoke("authorizer", event)
    assert (said["context"], error) == ({"tenant": "acme"}, None)
    assert said["policyDocument"]["Statement"][0]["Effect"] == "Allow"

    keys.revoke(issued.key.id)
    said, error = stage.invoke("authorizer", event)
    assert error is None
    assert "Allow" not in str(said)


def test_far_timers_go_from_scheduler_over_the_webhook_function_to_the_queue(
    api: Api, receiver: Receiver, stage: Stage
) -> None:
    before = time.time()
    count, seconds = 6, NEAR_S + 1
    ids = [api.set_timer(receiver.url("ok"), seconds) for _ in range(count)]
    last_set = time.time()
    assert (stage.schedules(), stage.messages()) == (count, 0)

    arrivals = receiver.wait_for(count, patience_s=seconds + PATIENCE_S)

    assert min(arrival.at for arrival in arrivals) >= before + seconds
    # Schedules come up to ten seconds late here, and those only little ahead of time are late
    # then; the others have the exact rest of their time from the queue.
    on_time = [each for each in arrivals if each.at <= last_set + seconds + ON_TIME_S]
    assert on_time
    assert set(receiver.counts().values()) == {1}
    assert eventually(lambda: {api.status(timer_id) for timer_id in ids} == {"fired"})
    assert stage.schedules() == 0


def test_a_timer_whose_wakeup_is_lost_is_found_by_the_sweeper(
    api: Api, receiver: Receiver, stage: Stage
) -> None:
    timer_id = api.set_timer(receiver.url("ok"), 3)
    due_at = time.time() + 3
    stage.lose_messages()
    time.sleep(3 + LEASE_S)
    assert api.status(timer_id) == "pending"

    swept, error = stage.invoke("sweeper", EVERY_MINUTE)

    assert error is None
    assert swept["finished"]
    (arrival,) = receiver.wait_for(1)
    assert arrival.at >= due_at - 1
    assert eventually(lambda: api.status(timer_id) == "fired")


def test_cancelled_timers_do_not_fire(api: Api, receiver: Receiver, stage: Stage) -> None:
    near = api.set_timer(receiver.url("ok/near"), 1)
    far = api.set_timer(receiver.url("ok/far"), 3600)
    assert stage.schedules() == 1

    cancel(api, near, far)
    assert stage.schedules() == 0
    assert_only_a_new_timer_fires(api, receiver)


def test_a_failed_webhook_is_tried_again(api: Api, receiver: Receiver) -> None:
    timer_id = api.set_timer(receiver.url("statuses/500,200"), 0)

    first, second = receiver.wait_for(2, patience_s=PATIENCE_S)

    assert 5 <= second.at - first.at <= 5.5 + ON_TIME_S
    assert first.header("webhook-id") == second.header("webhook-id")
    assert eventually(lambda: api.status(timer_id) == "fired")


def test_an_operator_delivers_a_timer_or_gets_the_reason_why_not(
    api: Api, receiver: Receiver, stage: Stage
) -> None:
    timer_id = api.set_timer(receiver.url("ok"), 0)
    receiver.wait_for(1)
    assert eventually(lambda: api.status(timer_id) == "fired")

    assert stage.invoke("webhook", {"id": timer_id}) == ({}, None)
    failure, error = stage.invoke("webhook", {"id": 4_711})
    assert error
    assert "no timer 4711" in failure["errorMessage"]
    assert len(receiver.arrivals()) == 1


def test_foreign_messages_are_dropped(api: Api, receiver: Receiver, stage: Stage) -> None:
    stage.put(" ", "hello", '{"wakeup": [1, "default", 4711, 1, 0]}')

    api.set_timer(receiver.url("ok"), 0)

    receiver.wait_for(1)
    assert eventually(lambda: stage.messages() == 0)


def test_timers_survive_a_stop_of_the_emulator(
    api: Api, receiver: Receiver, emulator: Emulator, stage: Stage
) -> None:
    missed = api.set_timer(receiver.url("ok/missed"), 1)
    missed_at = time.time() + 1
    pending = api.set_timer(receiver.url("ok/pending"), 6)
    emulator.stop()
    api.close()
    time.sleep(1)
    emulator.start()
    # What a function held when everything stopped is hidden on the queue for minutes: that is the
    # sweeper's, which this emulator does not run every minute.
    time.sleep(max(0.0, missed_at + LEASE_S - time.time()))
    stage.invoke("sweeper", EVERY_MINUTE)

    for path in (f"/ok/missed/{missed}", f"/ok/pending/{pending}"):
        receiver.wait_for(1, path, patience_s=PATIENCE_S)
    assert api.set_timer(receiver.url("ok"), 0) > pending
    assert eventually(lambda: api.status(pending) == "fired")


def test_all_timers_are_removed_at_once(api: Api, receiver: Receiver) -> None:
    api.set_timer(receiver.url("ok"), 3600)

    response = api.request("DELETE", "/timers")

    assert (response.status, response.json()) == (200, {})
    assert api.request("GET", "/timers").json() == []
