"""The resources, alarms and policies of a stage fit the code."""

from __future__ import annotations

import json
import re
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws import clients
from chalicelib.aws.dynamodb import api_keys as keys
from chalicelib.aws.dynamodb import rows
from chalicelib.aws.names import APP, Names
from chalicelib.aws.telemetry import NAMESPACE
from chalicelib.service.delivery import MAX_WAIT_MS
from chalicelib.service.ports import Metric
from chalicelib.settings import LAMBDA_SEND_TIMEOUT_S, PRODUCTION, load
from infra import cost
from infra.chalice_record import FUNCTIONS as FUNCTION_SUFFIXES
from infra.deploy import fingerprint
from infra.errors import DeployError
from infra.package import MERGE_TEMPLATE, ROOT, require_stage
from infra.resources import create_table, resources_template
from tests.support.dynamodb import dynamodb_on_moto
from tests.support.moto import REGION
from tests.support.templates import ACCOUNT, FUNCTIONS, STAGES, config, policy, resources

FORCED = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
"""Actions that AWS grants on everything or not at all."""

WRITES_S = 2.0
"""What claim, settle and put-back take at their slowest while DynamoDB and SQS respond."""

ARN = re.compile(
    r"arn:\*:(dynamodb|sqs|scheduler|iam|logs|ssm):(\*:\*|:\*):"
    r"(table/|schedule/|role/|parameter/|log-group:/aws/lambda/)?timers-(dev|prod)[\w/-]*(/\*|:\*)?"
)


def alarms(stage: str) -> dict[str, Any]:
    return {
        resource["Properties"]["AlarmName"]: resource["Properties"]
        for resource in resources(stage).values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_stack_makes_the_table_that_the_store_is_tested_on(stage: str) -> None:
    table = resources(stage)["Table"]["Properties"]
    with dynamodb_on_moto() as client:
        create_table(client, stage)
        tested: Any = client.describe_table(TableName=Names(stage).table)["Table"]
        ttl: Any = client.describe_time_to_live(TableName=Names(stage).table)
    assert tested["BillingModeSummary"]["BillingMode"] == table["BillingMode"]
    for key in ("TableName", "AttributeDefinitions", "KeySchema"):
        assert tested[key] == table[key]
    assert [
        {key: index[key] for key in ("IndexName", "KeySchema", "Projection")}
        for index in tested["GlobalSecondaryIndexes"]
    ] == table["GlobalSecondaryIndexes"]
    assert [index["IndexName"] for index in tested["GlobalSecondaryIndexes"]] == [
        rows.DUE_INDEX,
        rows.FAILED_INDEX,
    ]
    assert ttl["TimeToLiveDescription"] == {
        "AttributeName": "expires_at",
        "TimeToLiveStatus": "ENABLED",
    }
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_the_table_outlives_its_stack_and_is_protected_in_production() -> None:
    for stage in STAGES:
        table = resources(stage)["Table"]
        assert table["DeletionPolicy"] == "RetainExceptOnCreate"
        assert table["UpdateReplacePolicy"] == "Retain"
        assert table["Properties"]["DeletionProtectionEnabled"] is (stage == PRODUCTION)


@pytest.mark.parametrize("stage", STAGES)
def test_the_stack_names_everything_as_the_code_does(stage: str) -> None:
    names, made = Names(stage), resources(stage)
    assert made["Queue"]["Properties"]["QueueName"] == names.queue
    assert made["DeadLetters"]["Properties"]["QueueName"] == names.dead_letters
    assert made["ScheduleGroup"]["Properties"]["Name"] == names.schedule_group
    assert made["SchedulerRole"]["Properties"]["RoleName"] == names.scheduler_role
    logs = {
        resource["Properties"]["LogGroupName"]
        for resource in made.values()
        if resource["Type"] == "AWS::Logs::LogGroup"
    }
    assert logs == {f"/aws/lambda/{names.stack}{suffix}" for suffix in FUNCTION_SUFFIXES.values()}


def test_logs_are_kept_for_a_while_and_no_longer() -> None:
    for resource in resources("dev").values():
        if resource["Type"] == "AWS::Logs::LogGroup":
            assert resource["Properties"]["RetentionInDays"] == 30


@pytest.mark.parametrize("stage", STAGES)
def test_a_schedule_may_invoke_one_function_and_send_dead_letters(stage: str) -> None:
    names = Names(stage)
    role = resources(stage)["SchedulerRole"]["Properties"]
    (wake,) = role["Policies"]
    assert wake["PolicyDocument"]["Statement"] == [
        {
            "Sid": "Invoke",
            "Effect": "Allow",
            "Action": ["lambda:InvokeFunction"],
            "Resource": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{names.webhook_function}",
        },
        {
            "Sid": "LeaveBehind",
            "Effect": "Allow",
            "Action": ["sqs:SendMessage"],
            "Resource": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
        },
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_only_schedules_of_this_group_may_take_the_schedulers_role(stage: str) -> None:
    group = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{Names(stage).schedule_group}"
    role = resources(stage)["SchedulerRole"]["Properties"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": group}
    }


def test_an_unhandled_message_becomes_a_dead_letter() -> None:
    made = resources("dev")
    queue, dead = made["Queue"]["Properties"], made["DeadLetters"]["Properties"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
        "maxReceiveCount": 5,
    }
    assert dead["RedriveAllowPolicy"]["sourceQueueArns"] == [
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue['QueueName']}"
    ]
    assert dead["MessageRetentionPeriod"] == 14 * 86_400
    assert queue["SqsManagedSseEnabled"]
    assert dead["SqsManagedSseEnabled"]


def test_every_time_limit_leaves_room_for_the_one_inside_it() -> None:
    settings = load({})
    functions = config()["lambda_functions"]
    secrets: Any = clients.ONCE
    for name in ("webhook", "webhook_queue"):
        timeout = functions[name]["lambda_timeout"]
        # A wake-up waits out a second, and for the keys that sign; then there are the call and
        # the notice of its failure, and the writes before and after.
        keys_s = secrets.connect_timeout + secrets.read_timeout
        busy_s = MAX_WAIT_MS / 1000 + keys_s + 2 * LAMBDA_SEND_TIMEOUT_S
        assert busy_s + WRITES_S <= timeout < settings.lease_ms / 1000
        assert timeout == 28, "settings.py names this limit"
        assert resources("dev")["Queue"]["Properties"]["VisibilityTimeout"] == 6 * timeout
    assert functions["api_handler"]["lambda_timeout"] <= 29
    assert functions["sweeper"]["lambda_timeout"] <= 60
    assert functions["authorizer"]["lambda_timeout"] < functions["api_handler"]["lambda_timeout"]


@pytest.mark.parametrize("stage", STAGES)
def test_alarms_watch_the_metrics_that_the_functions_write(stage: str) -> None:
    watched = {
        "overdue": Metric.OVERDUE_MS,
        "unswept": Metric.SWEPT,
        "failed": Metric.FAILED,
        "late": Metric.LATENESS_MS,
    }
    for name, metric in watched.items():
        alarm = alarms(stage)[f"timers-{stage}-{name}"]
        assert alarm["Namespace"] == NAMESPACE
        assert alarm["MetricName"] == metric.value
        assert alarm["Dimensions"] == [{"Name": "service", "Value": f"{APP}-{stage}"}]


def test_every_function_is_watched_for_errors_and_throttles() -> None:
    watched = {
        (alarm["MetricName"], alarm["Dimensions"][0]["Value"])
        for alarm in alarms("dev").values()
        if alarm["Namespace"] == "AWS/Lambda"
    }
    assert watched == {
        (metric, f"timers-dev{suffix}")
        for metric in ("Errors", "Throttles")
        for suffix in FUNCTION_SUFFIXES.values()
    } | {("RecursiveInvocationsDropped", "timers-dev-webhook_queue")}


def test_the_table_and_every_index_of_it_are_watched_for_throttled_writes_and_reads() -> None:
    table = resources("dev")["Table"]["Properties"]
    on_table = {"TableName": Names("dev").table}
    indexes = [index["IndexName"] for index in table["GlobalSecondaryIndexes"]]
    throttled = [on_table, *(on_table | {"GlobalSecondaryIndexName": name} for name in indexes)]
    watched = [
        (alarm["MetricName"], {each["Name"]: each["Value"] for each in alarm["Dimensions"]})
        for alarm in alarms("dev").values()
        if alarm["Namespace"] == "AWS/DynamoDB"
    ]
    wanted = [(f"{kind}ThrottleEvents", where) for kind in ("Write", "Read") for where in throttled]
    assert sorted(watched, key=str) == sorted(wanted, key=str)


def test_alarms_notify_the_topic_and_only_one_of_them_treats_missing_data_as_bad() -> None:
    heard = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopic"}], {"Ref": "AWS::NoValue"}]}
    template = resources_template()["Resources"].values()
    for resource in template:
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            assert resource["Properties"]["AlarmActions"] == heard
            assert resource["Properties"]["OKActions"] == heard
    shouting = [
        name for name, alarm in alarms("dev").items() if alarm["TreatMissingData"] == "breaching"
    ]
    assert shouting == ["timers-dev-unswept"]


def test_the_operators_guide_lists_every_alarm() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    missing = [name for name in alarms("dev") if name.replace("timers-dev-", "…-") not in guide]
    assert missing == []


def test_production_grants_what_dev_grants() -> None:
    for function in FUNCTIONS:
        assert str(policy("prod", function)).replace("prod", "dev") == str(policy("dev", function))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_named_things_to_named_resources(stage: str, function: str) -> None:
    for statement in policy(stage, function):
        assert not [action for action in statement["Action"] if "*" in action]
        if set(statement["Action"]) == FORCED:
            assert statement["Resource"] == "*"
            continue
        found = ARN.fullmatch(statement["Resource"])
        assert found, statement["Resource"]
        assert f"timers-{stage}" in statement["Resource"]


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-eusc"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_policies_hold_in_every_partition(function: str, partition: str) -> None:
    """The files are static, and neither way of deploying puts a partition into them."""
    for statement in policy("dev", function):
        if statement["Resource"] == "*":
            continue
        service, rest = statement["Resource"].split(":", 3)[2:]
        assert fnmatchcase(f"arn:{partition}:{service}:{rest}", statement["Resource"])


def test_the_templates_name_no_partition() -> None:
    for text in (json.dumps(resources_template()), MERGE_TEMPLATE.read_text(encoding="utf-8")):
        assert "arn:aws" not in text


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_writes_its_own_logs_only(function: str) -> None:
    suffix = FUNCTION_SUFFIXES[function]
    (logs,) = [found for found in policy("dev", function) if found["Sid"] == "WriteLogs"]
    assert logs["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert logs["Resource"] == f"arn:*:logs:*:*:log-group:/aws/lambda/timers-dev{suffix}:*"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_may_make_keys_and_only_the_authorizer_may_read_them(
    stage: str, function: str
) -> None:
    """Whatever a function may do to the table, it may not do to the partition of the keys."""
    table = f"arn:*:dynamodb:*:*:table/{Names(stage).table}"
    on_table = [found for found in policy(stage, function) if found["Resource"] == table]
    if function == "authorizer":
        (look_up,) = on_table
        assert (look_up["Effect"], look_up["Action"]) == ("Allow", ["dynamodb:GetItem"])
        assert look_up["Condition"] == {
            "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [keys.PARTITION]}
        }
        return
    allowed = {
        action
        for found in on_table
        if found["Effect"] == "Allow" and "Condition" not in found
        for action in found["Action"]
    }
    (denied,) = [found for found in on_table if found["Effect"] == "Deny"]
    assert set(denied["Action"]) == allowed
    assert denied["Condition"] == {
        "ForAnyValue:StringEquals": {"dynamodb:LeadingKeys": [keys.PARTITION]}
    }


@pytest.mark.parametrize("function", ["webhook", "webhook_queue"])
def test_the_delivering_functions_may_put_no_row_but_the_identity(function: str) -> None:
    (put,) = [found for found in policy("dev", function) if "dynamodb:PutItem" in found["Action"]]
    assert put["Action"] == ["dynamodb:PutItem"]
    assert put["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [rows.store_key()["pk"]["S"]]}
    }


def test_schedules_get_their_role_and_no_other() -> None:
    for function in FUNCTIONS:
        for statement in policy("dev", function):
            if "iam:PassRole" in statement["Action"]:
                assert statement["Resource"] == "arn:*:iam::*:role/timers-dev-scheduler"
                assert statement["Condition"] == {
                    "StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}
                }


@pytest.mark.parametrize("stage", STAGES)
def test_every_function_has_a_policy_and_sizes(stage: str) -> None:
    functions = config()["stages"][stage]["lambda_functions"]
    assert set(functions) == set(FUNCTIONS) == set(config()["lambda_functions"])
    for name, function in functions.items():
        assert function["iam_policy_file"] == f"policies/{stage}/{name}.json"


def test_the_configuration_sets_only_values_that_a_shell_must_not_override() -> None:
    for stage in STAGES:
        assert config()["stages"][stage]["environment_variables"] == {"TIMERS_STAGE": stage}
    assert "environment_variables" not in config()


def test_the_same_code_has_the_same_fingerprint_whenever_it_was_packed(tmp_path: Path) -> None:
    files = {"a.py": b"a", "b/c.py": b"c"}
    first, second, other = (tmp_path / name for name in ("1.zip", "2.zip", "3.zip"))
    _pack(first, files, 1990)
    _pack(second, dict(reversed(files.items())), 2020)
    _pack(other, files | {"a.py": b"b"}, 1990)
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)


def test_an_unknown_stage_is_refused_by_name() -> None:
    with pytest.raises(DeployError, match="STAGE is one of dev, prod"):
        require_stage("production")


def _pack(path: Path, files: dict[str, bytes], year: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content)


def test_the_guide_to_costs_has_the_tables_that_the_prices_give() -> None:
    guide = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    for table in cost.tables().split("\n\n"):
        assert table in guide
