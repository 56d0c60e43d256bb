"""The policy of each function grants every call that the function makes, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore
from chalicelib.domain.moment import When
from chalicelib.domain.selection import EVERYTHING
from chalicelib.domain.webhook import Outcome
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.timers import TimerRequest
from infra import policies
from infra.package import ROOT
from tests.support.clock import ManualClock
from tests.support.factories import LEASE_MS, TENANT, URL
from tests.support.moto_stage import NAMES, AwsCall, MotoStage
from tests.support.sender import FakeSender
from tests.support.templates import FUNCTIONS, policy

HOUR_MS = 3_600_000
DELAYS_MS = (5_000, 5_000, 60_000, HOUR_MS)

ACTIONS = {
    "BatchWriteItem": "dynamodb:BatchWriteItem",
    "CreateSchedule": "scheduler:CreateSchedule",
    "DeleteItem": "dynamodb:DeleteItem",
    "DeleteSchedule": "scheduler:DeleteSchedule",
    "GetItem": "dynamodb:GetItem",
    "GetParameter": "ssm:GetParameter",
    "GetQueueAttributes": "sqs:GetQueueAttributes",
    "GetQueueUrl": "sqs:GetQueueUrl",
    "PutItem": "dynamodb:PutItem",
    "BatchGetItem": "dynamodb:BatchGetItem",
    "Query": "dynamodb:Query",
    "SendMessage": "sqs:SendMessage",
    "SendMessageBatch": "sqs:SendMessage",
    "UpdateItem": "dynamodb:UpdateItem",
}

BY_LAMBDA = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
}
"""Actions that Lambda itself takes in a function's name."""


def resource(call: AwsCall) -> str:
    """Return the ARN of the resource that a call names."""
    parameters = call.parameters
    place = "eu-central-1:123456789012"
    if ACTIONS[call.operation].startswith("dynamodb:"):
        table = parameters.get("TableName") or next(iter(parameters["RequestItems"]))
        index = f"/index/{parameters['IndexName']}" if "IndexName" in parameters else ""
        return f"arn:aws:dynamodb:{place}:table/{table}{index}"
    if ACTIONS[call.operation].startswith("sqs:"):
        queue = parameters.get("QueueName") or parameters["QueueUrl"].rsplit("/", 1)[1]
        return f"arn:aws:sqs:{place}:{queue}"
    if ACTIONS[call.operation].startswith("ssm:"):
        return f"arn:aws:ssm:{place}:parameter{parameters['Name']}"
    return f"arn:aws:scheduler:{place}:schedule/{parameters['GroupName']}/{parameters['Name']}"


def allowed(call: AwsCall, statements: list[dict[str, Any]]) -> bool:
    """Return whether IAM would allow a call: a statement allows it and none denies it."""
    effects = {
        statement["Effect"]
        for statement in statements
        if ACTIONS[call.operation] in statement["Action"]
        and fnmatchcase(resource(call), statement["Resource"].replace("timers-dev", NAMES.stack))
        and _condition_holds(call, statement.get("Condition"))
    }
    return effects == {"Allow"}


def _condition_holds(call: AwsCall, condition: dict[str, Any] | None) -> bool:
    if condition is None:
        return True
    ((kind, test),) = condition.items()
    (named,) = test.values()
    quantifier = {"ForAllValues:StringEquals": all, "ForAnyValue:StringEquals": any}[kind]
    return quantifier(key in named for key in leading_keys(call))


def leading_keys(call: AwsCall) -> list[str]:
    """Return the partition keys of a call to DynamoDB: ``dynamodb:LeadingKeys``."""
    parameters = call.parameters
    if call.operation == "Query":
        name = parameters["KeyConditionExpression"].partition(" AND ")[0].partition(" = ")[2]
        return [parameters["ExpressionAttributeValues"][name]["S"]]
    if call.operation == "BatchWriteItem":
        (entries,) = parameters["RequestItems"].values()
        places = [entry["DeleteRequest"]["Key"] for entry in entries]
    elif call.operation == "BatchGetItem":
        (table,) = parameters["RequestItems"].values()
        places = table["Keys"]
    else:
        places = [parameters.get("Item") or parameters["Key"]]
    return [place["pk"]["S"] for place in places]


def refused(stage: MotoStage, function: str) -> list[AwsCall]:
    statements = policy("dev", function)
    return [call for call in stage.calls if not allowed(call, statements)]


def unused(stage: MotoStage, function: str) -> set[str]:
    """Return the actions that a policy grants and no call needed."""
    granted = {
        action
        for statement in policy("dev", function)
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
    }
    used = {ACTIONS[call.operation] for call in stage.calls}
    if any(call.operation == "CreateSchedule" for call in stage.calls):
        used.add("iam:PassRole")
    return granted - used - BY_LAMBDA


@pytest.fixture
def fresh(stage: MotoStage) -> Callable[[], None]:
    """Forget the calls so far and begin a new process, which has looked up nothing."""

    def begin() -> None:
        stage.calls.clear()
        stage.wakeups._known_queue = None
        stage.begin_process()

    return begin


def test_the_api_is_granted_its_own_calls_and_nothing_else(
    stage: MotoStage, clock: ManualClock, fresh: Callable[[], None]
) -> None:
    fresh()
    api = stage.timers()
    near, far = (
        api.set(TENANT, TimerRequest(url=URL, when=When(delay))) for delay in (1_000, 5 * HOUR_MS)
    )
    api.set(TENANT, TimerRequest(url=URL, when=When(60_000)))
    api.get(TENANT, near.id)
    for status in (None, *type(near.status)):
        api.list(TENANT, before=None, status=status, limit=10)
    assert api.list_due(TENANT, after=None, only=EVERYTHING, limit=10).timers
    api.cancel(TENANT, far.id)
    api.purge(TENANT)
    api.check()

    assert refused(stage, "api_handler") == []
    assert unused(stage, "api_handler") == set()


def test_the_authorizer_may_look_up_keys_and_do_nothing_else(stage: MotoStage) -> None:
    api_keys = ApiKeys(DynamoDBApiKeyStore(stage.dynamodb, NAMES.table), stage.clock, os.urandom)
    issued = api_keys.issue(TENANT)
    stage.calls.clear()
    assert api_keys.tenant_of(f"Bearer {issued.text}") == TENANT

    assert refused(stage, "authorizer") == []
    assert unused(stage, "authorizer") == set()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_may_make_list_or_revoke_keys(stage: MotoStage, function: str) -> None:
    api_keys = ApiKeys(DynamoDBApiKeyStore(stage.dynamodb, NAMES.table), stage.clock, os.urandom)
    stage.calls.clear()
    issued = api_keys.issue(TENANT)
    api_keys.list()
    api_keys.revoke(issued.key.id)

    assert len(stage.calls) >= 4
    assert refused(stage, function) == stage.calls


@pytest.mark.parametrize("function", ["webhook", "webhook_queue"])
def test_the_delivering_functions_are_granted_their_own_calls_and_nothing_else(
    stage: MotoStage, clock: ManualClock, fresh: Callable[[], None], function: str
) -> None:
    timers = [
        stage.timers().set(TENANT, TimerRequest(url=URL, when=When(delay))) for delay in DELAYS_MS
    ]
    fresh()
    hour = Outcome(status=503, retry_after=3_600.0)
    sender = FakeSender(clock, Outcome(status=204), hour, Outcome(status=410))
    delivery = stage.delivery(sender, signing_keys=stage.signing_secrets())
    clock.now = timers[0].due_at
    for timer in timers:
        delivery.wake_or_deliver(TENANT, timer.id)
    clock.now = timers[-1].due_at
    delivery.deliver_all([timers[-1].wakeup()])

    assert refused(stage, function) == []
    assert unused(stage, function) == set()


def test_the_sweeper_is_granted_its_own_calls_and_nothing_else(
    stage: MotoStage, clock: ManualClock, fresh: Callable[[], None]
) -> None:
    timer = stage.timers().set(TENANT, TimerRequest(url=URL, when=When(5_000)))
    clock.now = timer.due_at
    stage.drain()
    fresh()
    clock.now = timer.due_at + 3 * LEASE_MS
    stage.sweeper().sweep()

    assert refused(stage, "sweeper") == []
    assert unused(stage, "sweeper") == set()


# The files


def test_the_committed_policies_are_those_of_their_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert policies.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_a_changed_missing_or_superfluous_policy_is_stale_until_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / ".chalice", tmp_path / ".chalice")
    folder = tmp_path / ".chalice" / "policies"
    changed = folder / "dev" / "webhook.json"
    changed.write_text(changed.read_text().replace("UpdateItem", "*"))
    (folder / "prod" / "sweeper.json").unlink()
    (folder / "prod" / "gone.json").write_text("{}")

    assert policies.main(["--check"], tmp_path) == 1
    shown = capsys.readouterr().err
    for name in ("dev/webhook.json", "prod/gone.json", "prod/sweeper.json"):
        assert f".chalice/policies/{name}" in shown
    assert shown.count(".json") == 3
    assert "make policies" in shown

    assert policies.main([], tmp_path) == 0
    assert policies.main(["--check"], tmp_path) == 0
    assert changed.read_text() == (ROOT / ".chalice/policies/dev/webhook.json").read_text()
