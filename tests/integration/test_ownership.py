"""Only what belongs to a stage is changed or removed, and what a kept table needs is kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalicelib.aws.names import Names
from chalicelib.domain.timer import NewTimer
from infra import __main__ as command
from infra.account import Account
from infra.chalice_record import FUNCTIONS
from infra.deploy import QUEUE_NAME_S, Deployment
from infra.errors import DeployError
from infra.ownership import TAG
from infra.package import ROOT, TEMPLATE_FILE, ZIP_FILE
from infra.resources import resources_template
from tests.integration.test_deployment import FakeChalice, resource_counts
from tests.support import cloudformation
from tests.support.moto import REGION

ELSEWHERE = "eu-west-1"
PACKAGE_TEMPLATE = {
    "Parameters": {"Stage": {"Type": "String"}},
    "Resources": {"T": {"Type": "AWS::SNS::Topic"}},
}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})

pytestmark = pytest.mark.filterwarnings(
    "ignore:Tried to parse AWS",  # moto's CloudFormation makes no alarms
    "ignore::DeprecationWarning",
)


class Stages:
    """Deployments of one account, with the lines that they print and the times they wait."""

    def __init__(self, root: Path, chalice: FakeChalice) -> None:
        self.lines: list[str] = []
        self.waits: list[float] = []
        self._root = root
        self._chalice = chalice

    def of(self, stage: str = "dev", region: str = REGION) -> Deployment:
        session = boto3.Session(region_name=region)
        cloudformation.accept_recursion_configs(session)
        account = dataclasses.replace(Account.current(), session=session, region=region)
        return Deployment(
            account,
            stage,
            self.lines.append,
            self._root,
            poll_s=0,
            sleep=self.waits.append,
            run_chalice=self._chalice.run,
        )


@pytest.fixture
def stages(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / ".chalice", root / ".chalice", ignore=shutil.ignore_patterns("dep*"))
    for name in ("app.py", "constraints.txt", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    return Stages(root, FakeChalice(monkeypatch))


def foreign_stack() -> None:
    boto3.client("cloudformation").create_stack(
        StackName="timers-dev",
        TemplateBody=json.dumps({"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}}),
    )


def foreign_function() -> None:
    role = boto3.client("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument=TRUST)
    boto3.client("lambda").create_function(
        FunctionName="timers-dev-webhook",
        Runtime="python3.12",
        Role=role["Role"]["Arn"],
        Handler="their.handler",
        Code={"ZipFile": b"PK\x05\x06" + bytes(18)},
    )


def foreign_role() -> None:
    boto3.client("iam").create_role(RoleName="timers-dev-sweeper", AssumeRolePolicyDocument=TRUST)


def foreign_queue() -> None:
    boto3.client("sqs").create_queue(QueueName="timers-dev-webhooks")


def foreign_table() -> None:
    boto3.client("dynamodb").create_table(
        TableName="timers-dev",
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


def foreign_bucket() -> None:
    boto3.client("s3").create_bucket(
        Bucket=f"timers-dev-packages-{cloudformation.ACCOUNT}-{REGION}",
        CreateBucketConfiguration={"LocationConstraint": REGION},  # type: ignore[typeddict-item]
    )


FOREIGN: dict[str, Callable[[], None]] = {
    "stack timers-dev": foreign_stack,
    "function timers-dev-webhook": foreign_function,
    "role timers-dev-sweeper": foreign_role,
    "queue timers-dev-webhooks": foreign_queue,
    "table timers-dev": foreign_table,
    "bucket timers-dev-packages": foreign_bucket,
}
ACTIONS: dict[str, Callable[[Deployment, Path], object]] = {
    "infra": lambda stage, _: stage.make_resources(),
    "deploy": lambda stage, _: stage.deploy(),
    "release": lambda stage, folder: stage.release(folder),
    "rearm": lambda stage, _: stage.rearm(),
    "destroy": lambda stage, _: stage.destroy(),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_not_the_stage_s_is_named_and_left_alone(
    stages: Stages, tmp_path: Path, kind: str, action: str
) -> None:
    FOREIGN[kind]()
    before = resource_counts()
    with pytest.raises(DeployError, match=rf"The {kind}\S* in account \d+ is not this stage's"):
        ACTIONS[action](stages.of(), tmp_path)
    assert resource_counts() == before
    assert stages.lines == []


@pytest.mark.parametrize("action", ACTIONS)
def test_a_command_checks_once_whose_the_resources_are(
    stages: Stages, tmp_path: Path, action: str
) -> None:
    if action == "rearm":
        stages.of().make_resources()
    dev = dataclasses.replace(stages.of(), package=small_package)
    show_outputs(dev.account.session)
    # Nothing but the check asks for these.
    checks = count_calls(dev.account.session, "s3.HeadBucket")
    tables = count_calls(dev.account.session, "dynamodb.ListTagsOfResource")
    ACTIONS[action](dev, tmp_path)
    assert len(checks) == 1
    assert len(tables) == (1 if action == "rearm" else 0)


def test_a_release_asks_once_what_chalice_made(stages: Stages, tmp_path: Path) -> None:
    dev = dataclasses.replace(stages.of(), package=small_package)
    show_outputs(dev.account.session)
    # Only Chalice's record asks for the rule.
    asked = count_calls(dev.account.session, "events.DescribeRule")
    dev.release(tmp_path)
    assert len(asked) == 1


def test_a_package_alone_is_checked_as_well(stages: Stages, tmp_path: Path) -> None:
    stages.of().make_resources()
    small_package("dev", tmp_path, tmp_path)
    dev = stages.of()
    show_outputs(dev.account.session)
    checks = count_calls(dev.account.session, "s3.HeadBucket")
    dev.deploy_package(tmp_path / TEMPLATE_FILE, tmp_path / ZIP_FILE)
    assert len(checks) == 1


def small_package(
    _stage: str, folder: Path, _root: Path, *, for_this_machine: bool = False
) -> None:
    """Write a package that moto can deploy."""
    assert not for_this_machine
    (folder / TEMPLATE_FILE).write_text(json.dumps(PACKAGE_TEMPLATE), encoding="utf-8")
    with zipfile.ZipFile(folder / ZIP_FILE, "w"):
        pass


def show_outputs(session: boto3.Session) -> None:
    """Show the outputs of a package's stack. moto gives a change set's new stack none."""

    def add(parsed: dict[str, Any], **_: Any) -> None:
        for stack in parsed.get("Stacks", []):
            if stack["StackName"].endswith("-app"):
                stack["Outputs"] = [{"OutputKey": "RestAPIId", "OutputValue": "abc"}]

    session.events.register("after-call.cloudformation.DescribeStacks", add)


def count_calls(session: boto3.Session, operation: str) -> list[str]:
    """Return a list that gets an entry for each call of an operation, such as s3.HeadBucket."""
    calls: list[str] = []

    def note(**_call: Any) -> None:
        calls.append(operation)

    session.events.register(f"before-call.{operation}", note)
    return calls


def test_everything_of_a_stage_has_its_tag(stages: Stages) -> None:
    stages.of().deploy()
    value = f"dev/{REGION}"
    (found,) = boto3.client("cloudformation").describe_stacks(StackName="timers-dev")["Stacks"]
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == {TAG: value}
    iam = boto3.client("iam")
    for name in FUNCTIONS:
        tags = iam.list_role_tags(RoleName=f"timers-dev-{name}")["Tags"]
        assert tags == [{"Key": TAG, "Value": value}]


@pytest.mark.parametrize("action", ["infra", "deploy", "release", "destroy"])
def test_a_stage_of_another_region_is_left_alone(
    stages: Stages, tmp_path: Path, action: str
) -> None:
    stages.of().deploy()
    before = resource_counts()
    elsewhere = stages.of(region=ELSEWHERE)
    with pytest.raises(DeployError, match=f"role .* belongs to stage dev in {REGION}"):
        ACTIONS[action](elsewhere, tmp_path)
    assert resource_counts() == before
    assert boto3.client("sqs", region_name=ELSEWHERE).list_queues().get("QueueUrls", []) == []


def test_a_stage_that_was_deployed_before_there_were_tags_is_known_by_its_functions(
    stages: Stages,
) -> None:
    dev = stages.of()
    dev.deploy()
    iam = boto3.client("iam")
    for name in FUNCTIONS:
        iam.untag_role(RoleName=f"timers-dev-{name}", TagKeys=[TAG])
    made = cloudformation.stack("timers-dev")
    made.tags.clear()
    made.description = resources_template()["Description"]  # moto takes none from a change set
    with pytest.raises(DeployError, match="nothing says that it belongs to this stage"):
        stages.of(region=ELSEWHERE).destroy()
    dev.deploy()
    assert iam.list_role_tags(RoleName="timers-dev-webhook")["Tags"]
    dev.destroy()
    assert resource_counts()["roles"] == 0


# Production


def test_production_is_destroyed_only_with_account_and_region(stages: Stages) -> None:
    prod = stages.of("prod")
    prod.make_resources()
    before = resource_counts()
    for confirmed in (None, "prod", f"{cloudformation.ACCOUNT}/{ELSEWHERE}"):
        with pytest.raises(DeployError, match=rf"CONFIRM={cloudformation.ACCOUNT}/{REGION}"):
            prod.destroy(confirmed)
    assert resource_counts() == before


def test_the_command_passes_the_confirmation_on(
    aws: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["destroy", "prod"]) == 1
    assert f"make destroy STAGE=prod CONFIRM={cloudformation.ACCOUNT}/{REGION}" in (
        capsys.readouterr().err
    )
    place = f"{cloudformation.ACCOUNT}/{REGION}"
    assert command.main(["destroy", "prod", "--confirm", place]) == 0


def armed_timers(count: int) -> list[Any]:
    """Set ``count`` far timers in production through its engine; return them."""
    from chalicelib.aws.engine import AwsEngine
    from chalicelib.bootstrap import engine_options, wall_clock
    from chalicelib.settings import load

    engine = AwsEngine(Names("prod"), engine_options(load({})), near_s=900)
    now = int(wall_clock())
    return [
        engine.timers.create(
            NewTimer(
                tenant="default",
                url="https://receiver.example/",
                created_at=now,
                due_at=now + 86_400_000,
            )
        )
        for _ in range(count)
    ]


def schedules() -> set[str]:
    """Return the names of the schedules in production's group."""
    pages = boto3.client("scheduler").list_schedules(GroupName="timers-prod")["Schedules"]
    return {schedule["Name"] for schedule in pages}


def test_a_kept_table_keeps_its_secrets_and_gets_its_wakeups_back(stages: Stages) -> None:
    prod = stages.of("prod")
    cloudformation.import_existing_tables(prod.account.session)
    prod.make_resources()
    boto3.client("scheduler").create_schedule_group(Name="timers-prod")  # moto's stack makes none
    prod.secrets.rotate(show=lambda _secret: None)
    armed_timers(3)
    before = schedules()
    assert len(before) == 3
    cloudformation.keep_retained("timers-prod")
    # moto would delete a protected table only without its protection, and here it must keep it.
    prod.destroy(prod.place)
    assert resource_counts()["tables"] == resource_counts()["parameters"] == 1
    assert resource_counts()["queues"] == 0
    boto3.client("scheduler").delete_schedule_group(Name="timers-prod")
    boto3.client("scheduler").create_schedule_group(Name="timers-prod")

    stages.lines.clear()
    cloudformation.fail_once_for_a_removed_queue(prod.account.session)
    prod.make_resources()
    assert stages.waits == [QUEUE_NAME_S]
    assert any("keeps a removed queue's name" in line for line in stages.lines)
    assert "timers-prod: 3 wake-ups registered, for all armed timers" in stages.lines
    assert schedules() == before
    # Again: nothing is doubled.
    prod.rearm()
    assert schedules() == before


def test_a_first_deployment_registers_no_wakeups(stages: Stages) -> None:
    stages.of().deploy()
    assert not [line for line in stages.lines if "wake-ups" in line]


def test_rearming_needs_a_table(stages: Stages) -> None:
    with pytest.raises(DeployError, match="no table timers-dev: `make infra` makes it"):
        stages.of().rearm()
