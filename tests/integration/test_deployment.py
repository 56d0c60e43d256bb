"""A stage is deployed and destroyed on moto, by our commands and by the calls of Chalice.

moto cannot import an API from Chalice's document, so the tests do that step in its place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from chalice.awsclient import TypedAWSClient
from chalice.cli.factory import CLIFactory
from chalice.deploy.packager import LambdaDeploymentPackager
from chalice.utils import UI

from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.functions import BATCH_SIZE
from infra import __main__ as command
from infra.account import Account
from infra.chalice_record import FUNCTIONS
from infra.deploy import Deployment, Way, fingerprint
from infra.errors import DeployError
from infra.keys import api_keys_of
from infra.package import ROOT, run_chalice
from tests.support.cloudformation import accept_recursion_configs
from tests.support.moto import REGION
from tests.support.templates import config, policy

URL = "https://api.example/dev"

pytestmark = pytest.mark.filterwarnings(
    "ignore:Tried to parse AWS",  # moto's CloudFormation makes no alarms
    "ignore::DeprecationWarning",
)


@pytest.fixture
def lines() -> list[str]:
    return []


class FakeChalice:
    """Runs commands of Chalice in this process, with a small package and an API that moto accepts.

    Chalice has no parameters for these steps, so its methods are replaced.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken = False
        self.recursion: list[dict[str, Any]] = []
        monkeypatch.setattr(LambdaDeploymentPackager, "create_deployment_package", _small_package)
        monkeypatch.setattr(TypedAWSClient, "import_rest_api", lambda _, **api: self._import(**api))
        monkeypatch.setattr(TypedAWSClient, "update_api_from_swagger", lambda *_, **__: None)
        monkeypatch.setattr(TypedAWSClient, "deploy_rest_api", lambda *_, **__: None)

    def run(self, arguments: list[str], region: str, folder: Path) -> None:
        command, _, stage = arguments
        factory = CLIFactory(str(folder), environ=dict(os.environ))
        session = factory.create_botocore_session()
        settings = factory.create_config_obj(stage)
        if command == "deploy":
            deployer = factory.create_default_deployer(session, settings, UI())
        else:
            deployer = factory.create_deletion_deployer(session, UI())
        deployer.deploy(settings, stage)

    def _import(self, swagger_document: dict[str, Any], endpoint_type: str) -> str:
        if self.broken:
            raise DeployError("API Gateway is away")
        api = boto3.client("apigateway").create_rest_api(
            name=swagger_document["info"]["title"], endpointConfiguration={"types": [endpoint_type]}
        )
        return str(api["id"])


@pytest.fixture
def chalice(monkeypatch: pytest.MonkeyPatch) -> FakeChalice:
    return FakeChalice(monkeypatch)


@pytest.fixture
def dev(aws: None, lines: list[str], tmp_path: Path, chalice: FakeChalice) -> Deployment:
    account = Account.current()
    chalice.recursion = accept_recursion_configs(account.session)
    return Deployment(
        account,
        "dev",
        lines.append,
        checkout(tmp_path / "one"),
        poll_s=0,
        run_chalice=chalice.run,
    )


def checkout(folder: Path) -> Path:
    shutil.copytree(ROOT / ".chalice", folder / ".chalice", ignore=shutil.ignore_patterns("dep*"))
    for name in ("app.py", "constraints.txt", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def resource_counts() -> dict[str, int]:
    """Return how many resources of each kind the account has."""
    functions = boto3.client("lambda")
    return {
        "functions": len(functions.list_functions()["Functions"]),
        "event sources": len(functions.list_event_source_mappings()["EventSourceMappings"]),
        "rules": len(boto3.client("events").list_rules()["Rules"]),
        "roles": len(boto3.client("iam").list_roles()["Roles"]),
        "apis": len(boto3.client("apigateway").get_rest_apis()["items"]),
        "tables": len(boto3.client("dynamodb").list_tables()["TableNames"]),
        "queues": len(boto3.client("sqs").list_queues().get("QueueUrls", [])),
        "buckets": len(boto3.client("s3").list_buckets()["Buckets"]),
        "parameters": len(boto3.client("ssm").describe_parameters()["Parameters"]),
    }


def test_resources_are_made_once_and_then_left_alone(dev: Deployment, lines: list[str]) -> None:
    dev.make_resources()
    assert lines[0] == "timers-dev: creating"
    assert lines[-1] == "timers-dev: done"
    lines.clear()
    dev.make_resources()
    assert lines == ["timers-dev: nothing to change"]


def test_a_topic_for_alarms_stays_until_another_is_named(dev: Deployment) -> None:
    topic = f"arn:aws:sns:{REGION}:123456789012:ops"
    dev.make_resources(alarm_topic=topic)
    dev.make_resources()
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName="timers-dev")["Stacks"]
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in stack["Parameters"]}
    assert parameters == {"Stage": "dev", "AlarmTopic": topic}


def test_a_stack_that_is_being_changed_is_left_alone(dev: Deployment) -> None:
    dev.make_resources()
    _set_status("UPDATE_IN_PROGRESS")
    with pytest.raises(DeployError, match=r"being changed \(UPDATE_IN_PROGRESS\): try again"):
        dev.make_resources()


def test_a_stack_whose_creation_failed_is_created_again(dev: Deployment, lines: list[str]) -> None:
    dev.make_resources()
    _set_status("ROLLBACK_COMPLETE")
    lines.clear()
    dev.make_resources()
    assert lines[0] == "timers-dev: ROLLBACK_COMPLETE, so it starts afresh"
    assert lines[-1] == "timers-dev: done"


def test_the_error_for_a_stuck_stack_says_what_to_do(dev: Deployment) -> None:
    dev.make_resources()
    _set_status("UPDATE_ROLLBACK_FAILED")
    with pytest.raises(DeployError, match="continue its rollback"):
        dev.make_resources()


def test_chalice_makes_every_function_with_its_own_role(
    dev: Deployment, chalice: FakeChalice
) -> None:
    dev.deploy()
    functions = boto3.client("lambda")
    iam = boto3.client("iam")
    for name, suffix in FUNCTIONS.items():
        made = functions.get_function(FunctionName=f"timers-dev{suffix}")["Configuration"]
        sizes = config()["lambda_functions"][name]
        assert made["Timeout"] == sizes["lambda_timeout"]
        assert made["MemorySize"] == sizes["lambda_memory_size"]
        assert made["Environment"]["Variables"] == {"TIMERS_STAGE": "dev"}
        assert made["TracingConfig"] == {"Mode": "Active"}
        assert made["Architectures"] == ["arm64"]
        role = f"timers-dev-{name}"
        assert made["Role"].endswith(f"/{role}")
        granted: Any = iam.get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]
        assert granted["Statement"] == policy("dev", name)


def test_chalice_connects_queue_schedule_and_api(dev: Deployment, chalice: FakeChalice) -> None:
    assert dev.address() is None
    url = dev.deploy()
    assert dev.address() == url
    (source,) = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert source["EventSourceArn"].endswith(f":{dev.names.queue}")
    assert source["BatchSize"] == BATCH_SIZE
    (rule,) = boto3.client("events").list_rules()["Rules"]
    assert (rule["Name"], rule["ScheduleExpression"]) == (
        "timers-dev-sweeper-event",
        "rate(1 minute)",
    )
    (api,) = boto3.client("apigateway").get_rest_apis()["items"]
    assert url == f"https://{api['id']}.execute-api.{REGION}.amazonaws.com/dev"
    assert api["endpointConfiguration"]["types"] == ["REGIONAL"]


def test_the_queue_s_function_may_put_its_messages_back(
    dev: Deployment, chalice: FakeChalice
) -> None:
    dev.deploy()
    (setting,) = chalice.recursion
    assert "/functions/timers-dev-webhook_queue/" in setting["path"]
    assert setting["RecursiveLoop"] == "Allow"


def test_deploying_again_changes_nothing_even_from_another_checkout(
    dev: Deployment, chalice: FakeChalice, tmp_path: Path
) -> None:
    url, made = dev.deploy(), resource_counts()
    assert dev.deploy() == url
    elsewhere = replace(dev, root=checkout(tmp_path / "two"))
    assert elsewhere.deploy() == url
    assert resource_counts() == made


def test_a_deployment_that_was_cut_off_is_finished_by_the_next(
    dev: Deployment, chalice: FakeChalice
) -> None:
    chalice.broken = True
    with pytest.raises(DeployError, match="API Gateway is away"):
        dev.deploy()
    assert resource_counts()["functions"] == len(FUNCTIONS)
    assert resource_counts()["apis"] == 0
    chalice.broken = False
    dev.deploy()
    assert (
        resource_counts()["apis"]
        == resource_counts()["event sources"]
        == resource_counts()["rules"]
        == 1
    )


@pytest.mark.parametrize("cut_off", [False, True])
def test_nothing_is_left_of_a_stage_that_was_destroyed(
    dev: Deployment, chalice: FakeChalice, lines: list[str], *, cut_off: bool
) -> None:
    before = resource_counts()
    chalice.broken = cut_off
    if cut_off:
        with pytest.raises(DeployError):
            dev.deploy()
    else:
        dev.deploy()
    dev.secrets.rotate(show=lambda _secret: None)
    assert resource_counts() != before
    dev.destroy()
    assert resource_counts() == before
    lines.clear()
    dev.destroy()
    assert lines == ["dev: nothing is deployed"]


def test_a_package_is_refused_where_chalice_deployed(
    dev: Deployment, chalice: FakeChalice, tmp_path: Path
) -> None:
    dev.deploy()
    with pytest.raises(DeployError, match=r"was deployed with `make deploy`.*make destroy"):
        dev.release(tmp_path)
    assert dev.way() is Way.CHALICE


def test_chalice_is_refused_where_a_package_was_deployed(
    dev: Deployment, chalice: FakeChalice
) -> None:
    boto3.client("cloudformation").create_stack(
        StackName=dev.application,
        TemplateBody=json.dumps(
            {
                "Parameters": {"Stage": {"Type": "String", "Default": "dev"}},
                "Resources": {"T": {"Type": "AWS::SNS::Topic"}},
                "Outputs": {"RestAPIId": {"Value": "abc"}},
            }
        ),
    )
    assert dev.address() == f"https://abc.execute-api.{REGION}.amazonaws.com/dev"
    with pytest.raises(DeployError, match=r"was deployed with `make release`.*make destroy"):
        dev.deploy()
    assert resource_counts()["tables"] == 0


def packed(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


DEV_CODE = {"app.py": "a", "chalicelib/x.py": "b", "lib/tested.py": "1"}


def released(dev: Deployment, folder: Path) -> str:
    """Deploy ``dev`` as a release does, with code of its own; return the code's object key."""
    dev.make_resources()
    code = packed(folder / "dev.zip", DEV_CODE)
    key = f"{fingerprint(code)}.zip"
    boto3.client("s3").put_object(Bucket=dev.bucket, Key=key, Body=code.read_bytes())
    function = {
        "Type": "AWS::Serverless::Function",
        "Properties": {"CodeUri": {"Bucket": dev.bucket, "Key": key}},
    }
    boto3.client("cloudformation").create_stack(
        StackName=dev.application,
        TemplateBody=json.dumps(
            {"Resources": {"T": {"Type": "AWS::SNS::Topic"}, "F": function}},
        ),
        Tags=[{"Key": name, "Value": value} for name, value in dev.ownership.tags.items()],
    )
    return key


def test_a_stage_gets_the_very_package_that_another_runs(
    dev: Deployment, chalice: FakeChalice, tmp_path: Path, lines: list[str]
) -> None:
    key = released(dev, tmp_path)
    code = packed(tmp_path / "deployment.zip", {**DEV_CODE, "lib/tested.py": "2"})
    prod = replace(dev, stage="prod")
    prod.promote("dev", code)
    assert f"{fingerprint(code)}.zip" == key
    assert lines[-1] == f"prod gets the package of dev: {key.removesuffix('.zip')}"


def test_a_package_that_does_not_fit_the_checkout_is_not_promoted(
    dev: Deployment, chalice: FakeChalice, tmp_path: Path
) -> None:
    key = released(dev, tmp_path)
    code = packed(tmp_path / "deployment.zip", {**DEV_CODE, "app.py": "another"})
    before = code.read_bytes()
    prod = replace(dev, stage="prod")
    with pytest.raises(DeployError, match="This checkout is not what that stage runs"):
        prod.promote("dev", code)
    boto3.client("s3").put_object(Bucket=dev.bucket, Key=key, Body=before)
    with pytest.raises(DeployError, match="The package of dev was changed"):
        prod.promote("dev", code)
    boto3.client("s3").delete_object(Bucket=dev.bucket, Key=key)
    with pytest.raises(DeployError, match="no longer has the package"):
        prod.promote("dev", code)
    assert code.read_bytes() == before


def test_a_stage_that_was_not_released_has_no_package(
    dev: Deployment, chalice: FakeChalice, tmp_path: Path
) -> None:
    dev.deploy()
    with pytest.raises(DeployError, match=r"dev was not deployed with `make release`"):
        replace(dev, stage="prod").promote("dev", tmp_path / "deployment.zip")


def test_the_error_for_missing_resources_names_the_command_that_makes_them(
    dev: Deployment, tmp_path: Path
) -> None:
    template, code = tmp_path / "sam.json", tmp_path / "deployment.zip"
    template.write_text('{"Resources": {}}', encoding="utf-8")
    with zipfile.ZipFile(code, "w"):
        pass
    with pytest.raises(DeployError, match="`make infra STAGE=dev` makes it"):
        dev.deploy_package(template, code)


def test_without_a_region_one_line_says_so(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Here and below: boto3 reads region, profile and credentials from the environment.
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(DeployError, match="No AWS region: set AWS_DEFAULT_REGION"):
        Account.current()


def test_without_credentials_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with pytest.raises(DeployError, match="No AWS credentials: set AWS_PROFILE, or"):
        Account.current()


def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(DeployError, match="nobody"):
        Account.current()


# The output at the end


def output_of(dev: Deployment, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is printed when a stage has been deployed."""
    capsys.readouterr()
    command._show(dev, URL)
    return capsys.readouterr().out


def test_a_new_stage_gets_a_first_key_and_a_line_that_works_with_it(
    dev: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    dev.make_resources()
    text = output_of(dev, capsys)
    (line,) = [line for line in text.splitlines() if "curl" in line]
    (header,) = re.findall(r"Authorization: (Bearer wt_[\w-]+)'", line)
    assert f"{URL}/timers" in line
    assert api_keys_of(dev.account, "dev").tenant_of(header) == DEFAULT_TENANT


def test_existing_keys_are_not_shown_again_and_no_key_is_made(
    dev: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    dev.make_resources()
    output_of(dev, capsys)
    text = output_of(dev, capsys)
    assert "wt_" not in text
    assert 'Authorization: Bearer $KEY"' in text
    assert "make key STAGE=dev TENANT=default" in text
    assert len(api_keys_of(dev.account, "dev").list()) == 1


def test_a_stage_is_open_only_if_its_configuration_says_so_and_then_a_warning_is_shown(
    dev: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dev.make_resources()
    monkeypatch.setenv("TIMERS_AUTH", "none")  # a variable of the shell, which has no effect
    assert not dev.is_open
    file = dev.root / ".chalice" / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["stages"]["dev"]["environment_variables"]["TIMERS_AUTH"] = "none"
    file.write_text(json.dumps(settings), encoding="utf-8")

    text = output_of(dev, capsys)
    assert "WARNING: dev asks for no key" in text
    assert "Authorization" not in text
    assert api_keys_of(dev.account, "dev").list() == []


def test_the_error_for_a_key_that_cannot_be_made_says_how_to_continue(
    dev: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    class FakeDeployment(Deployment):
        """Says that it is deployed, and has no table for keys."""

        def deploy(self) -> str:
            return URL

    assert command.main(["deploy", "dev"], FakeDeployment) == 1
    assert "Everything else is done: make key STAGE=dev" in capsys.readouterr().err


def test_settings_of_the_offline_server_do_not_reach_chalice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, str] = {}
    # No process is started: only its environment is of interest.
    monkeypatch.setattr("subprocess.run", lambda _, env, **__: seen.update(env))
    for name in ("TIMERS_AUTH", "TIMERS_ENGINE", "TIMERS_SIGNING_SECRETS"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    run_chalice(["deploy"], REGION, tmp_path)
    assert seen["AWS_PROFILE"] == "mine"
    assert not [name for name in seen if name.startswith("TIMERS_")]


def _small_package(_packager: Any, folder: str, _version: str) -> str:
    path = Path(folder) / "small.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app.py", "")
    return str(path)


def _set_status(status: str) -> None:
    from moto.backends import get_backend

    stacks = get_backend("cloudformation")["123456789012"][REGION].stacks
    for stack in stacks.values():
        stack.status = status
