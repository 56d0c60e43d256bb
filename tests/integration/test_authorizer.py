"""The authorizer's function as API Gateway and Chalice use it, and the commands for keys."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chalice.app import Chalice
from chalice.local import ARNMatcher

from chalicelib.bootstrap import Service
from chalicelib.domain.errors import Unavailable
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.functions import Functions, create_functions
from chalicelib.service.api_keys import ApiKeys, Issued
from infra import keys as keys_on_aws
from infra.account import Account
from infra.errors import DeployError
from infra.package import ROOT
from local import keys as keys_here
from tests.support.clock import ManualClock
from tests.support.moto import REGION
from tests.support.moto_stage import NAMES, MotoStage
from tests.support.service import service_on

ADDRESS = "https://abc.execute-api.eu-central-1.amazonaws.com/dev"
API = "arn:aws:execute-api:eu-central-1:123456789012:abcdef1234/dev"


@pytest.fixture
def api_keys(tmp_path: Path) -> ApiKeys:
    """Return the use cases on an empty store, with random bytes 00 00 …, 01 01 …."""
    drawn = iter(range(256))
    return ApiKeys(
        SQLiteApiKeyStore(DataFolder(tmp_path)),
        ManualClock(),
        lambda length: bytes([next(drawn)]) * length,
    )


@pytest.fixture
def here(api_keys: ApiKeys) -> Service:
    """Return a service of this machine with these keys."""
    service = service_on(SQLiteTimerStore.in_memory(), ManualClock())
    service.api_keys = api_keys
    return service


def functions_on(tmp_path: Path, *, refuse_in_api: bool = False) -> Functions:
    """Return the functions of a service whose keys are in ``tmp_path``."""
    keys = SQLiteApiKeyStore(DataFolder(tmp_path))
    store = SQLiteTimerStore.in_memory()
    service = service_on(store, ManualClock(), api_keys=keys)
    return create_functions(service, NAMES, refuse_in_api=refuse_in_api)


@pytest.fixture
def functions(tmp_path: Path) -> Functions:
    return functions_on(tmp_path)


@pytest.fixture
def acme(api_keys: ApiKeys) -> Issued:
    return api_keys.issue("acme")


def authorize(functions: Functions, token: str) -> dict[str, Any]:
    event = {"type": "TOKEN", "authorizationToken": token, "methodArn": f"{API}/GET/timers/7"}
    policy: dict[str, Any] = functions.authorizer(event, {})
    return policy


def statement(policy: dict[str, Any]) -> dict[str, Any]:
    (only,) = policy["policyDocument"]["Statement"]
    assert only["Action"] in ("execute-api:Invoke", ["execute-api:Invoke"])
    found: dict[str, Any] = only
    return found


# The authorizer's function


def test_a_good_key_opens_every_route_of_this_api_and_no_other(
    functions: Functions, acme: Issued
) -> None:
    policy = authorize(functions, f"Bearer {acme.text}")
    assert policy["principalId"] == "acme"
    assert policy["context"] == {"tenant": "acme"}
    allowed = statement(policy)
    assert allowed["Effect"] == "Allow"
    for called in ("GET/timers", "POST/timers", "DELETE/timers/7", "POST/timers/7/replay", "GET/"):
        assert ARNMatcher(f"{API}/{called}").does_any_resource_match(allowed["Resource"])
    for other in (API.replace("/dev", "/prod"), API.replace("abcdef1234", "zzzzzz1234")):
        assert not ARNMatcher(f"{other}/GET/timers").does_any_resource_match(allowed["Resource"])


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wt_x", "Bearer wt_" + "x" * 43])
def test_any_other_key_is_denied_everything_without_a_failed_invocation(
    functions: Functions, acme: Issued, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        denied = statement(authorize(functions, token))
    assert (denied["Effect"], denied["Resource"]) == ("Deny", "*")
    assert caplog.records == []


def test_an_unavailable_store_denies_no_key(
    functions: Functions, acme: Issued, tmp_path: Path
) -> None:
    (tmp_path / "keys.db").write_bytes(b"\xff" * 8192)
    with pytest.raises(Unavailable):
        authorize(functions, f"Bearer {acme.text}")


def test_under_chalice_local_the_api_refuses_instead_of_the_authorizer(
    acme: Issued, tmp_path: Path
) -> None:
    functions = functions_on(tmp_path, refuse_in_api=True)
    assert authorize(functions, f"Bearer {acme.text}")["context"] == {"tenant": "acme"}
    assert authorize(functions, "Bearer x")["context"] == {"refused": "unauthorized"}
    (tmp_path / "keys.db").write_bytes(b"\xff" * 8192)
    assert authorize(functions, f"Bearer {acme.text}")["context"] == {"refused": "unavailable"}


def test_chalice_builds_the_authorizer_with_a_cache_of_one_minute(
    functions: Functions,
) -> None:
    app = Chalice("timers", configure_logs=False)
    app.register_blueprint(functions.blueprint)
    (made,) = app.builtin_auth_handlers
    assert (made.name, made.handler_string) == ("authorizer", "chalicelib.functions.authorizer")
    assert (made.ttl_seconds, made.header) == (60, "Authorization")


# What Chalice builds on this machine

BUILD = """
import json, os, sys
sys.argv = ["chalice", *sys.argv[2:], "--stage", sys.argv[1]]
from chalice.cli import _configure_cli_env_vars
from chalice.cli.factory import CLIFactory
_configure_cli_env_vars()
app = CLIFactory(os.getcwd(), environ=os.environ).create_config_obj(sys.argv[-1]).chalice_app
guarded = [f"{method} {path}" for path, methods in app.routes.items()
           for method, entry in methods.items() if entry.authorizer]
open_ = [f"{method} {path}" for path, methods in app.routes.items()
         for method, entry in methods.items() if not entry.authorizer]
print(json.dumps([guarded, open_]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project, whose configuration may be changed."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT / ".chalice", copy / ".chalice")
    shutil.copytree(ROOT / "chalicelib", copy / "chalicelib")
    shutil.copy(ROOT / "app.py", copy)
    return copy


def built(project: Path, stage: str, *command: str) -> list[list[str]]:
    """Return which routes ask for a key and which do not, as Chalice's command sees them."""
    ran = subprocess.run(
        [sys.executable, "-c", BUILD, stage, *command],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    routes: list[list[str]] = json.loads(ran.stdout)
    return routes


@pytest.mark.parametrize("command", ["deploy", "package"])
def test_a_built_app_asks_for_a_key_unless_the_configuration_says_otherwise(
    project: Path, command: str
) -> None:
    for stage in ("dev", "prod"):
        guarded, open_ = built(project, stage, command)
        assert sorted(open_) == ["GET /", "GET /health", "GET /openapi.json"]
        assert "POST /timers" in guarded

    file = project / ".chalice" / "config.json"
    config = json.loads(file.read_text())
    config["stages"]["dev"]["environment_variables"]["TIMERS_AUTH"] = "none"
    file.write_text(json.dumps(config))
    assert built(project, "dev", command)[0] == []
    assert built(project, "prod", command)[0] != []


# The commands for keys


def run_here(service: Service, *arguments: str) -> int:
    return keys_here.main(arguments, service)


def test_a_key_is_shown_once_with_a_curl_line(
    here: Service, api_keys: ApiKeys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(here, "issue", "acme") == 0
    shown = capsys.readouterr().out
    text = shown.splitlines()[0]
    assert api_keys.tenant_of(f"Bearer {text}") == "acme"
    assert f"-H 'Authorization: Bearer {text}'" in shown
    assert "curl -X POST http://127.0.0.1:8000/timers" in shown
    assert "TIMERS_AUTH=keys" in shown

    assert run_here(here, "list") == 0
    listed = capsys.readouterr().out
    assert listed == "aeaqcaib  2027-01-15T08:00:00+00:00  acme\n"

    assert run_here(here, "revoke", "aeaqcaib") == 0
    assert "within 60 s" in capsys.readouterr().out
    assert list(api_keys.list()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["issue", "Acme"], "'Acme' names no tenant"), (["revoke", "abc"], "no key 'abc'")],
)
def test_a_failed_command_prints_one_line(
    here: Service,
    api_keys: ApiKeys,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    assert run_here(here, *arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert reason in shown.err
    assert len(shown.err.splitlines()) == 1


class FakeSession:
    """A session whose only client is that of the stage's DynamoDB."""

    def __init__(self, stage: MotoStage) -> None:
        self._stage = stage

    def client(self, name: str, **_options: Any) -> Any:
        assert name == "dynamodb"
        return self._stage.dynamodb


@pytest.fixture
def account(stage: MotoStage) -> Account:
    session: Any = FakeSession(stage)
    return Account(session, id="123456789012", region=REGION)


def run_on(account: Account, *arguments: str) -> int:
    return keys_on_aws.main(arguments, lambda: account, lambda _account, _stage: ADDRESS)


def test_the_keys_of_a_stage_are_in_its_table(
    account: Account,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_on(account, NAMES.stage, "issue", "acme") == 0
    shown = capsys.readouterr().out
    assert f"{ADDRESS}/timers" in shown
    api_keys = keys_on_aws.api_keys_of(account, NAMES.stage)
    assert api_keys.tenant_of(f"Bearer {shown.splitlines()[0]}") == "acme"
    (issued,) = api_keys.list()
    assert run_on(account, NAMES.stage, "list") == 0
    assert capsys.readouterr().out.startswith(issued.id)
    assert run_on(account, NAMES.stage, "revoke", issued.id) == 0
    assert list(api_keys.list()) == []


def test_a_stage_gets_its_first_key_once(account: Account) -> None:
    first = keys_on_aws.first_key(account, NAMES.stage)
    assert first
    assert first.key.tenant == "default"
    assert keys_on_aws.first_key(account, NAMES.stage) is None


@pytest.mark.parametrize("name", ["nowhere", NAMES.stage])
def test_a_stage_whose_keys_cannot_be_reached_prints_one_line(
    account: Account,
    stage: MotoStage,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    if name == NAMES.stage:
        stage.fail()
    assert run_on(account, name, "issue", "acme") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("webhook-timers: ")


def test_without_credentials_one_line_says_what_to_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def connect() -> Account:
        raise DeployError("No AWS credentials: set AWS_PROFILE")

    assert keys_on_aws.main(["dev", "list"], connect) == 1
    assert capsys.readouterr().err == "webhook-timers: No AWS credentials: set AWS_PROFILE\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["key"], "-m local.keys issue 'default'"),
        (["key", "TENANT=acme"], "-m local.keys issue 'acme'"),
        (["key", "TENANT=acme", "STAGE=prod"], "-m infra.keys prod issue 'acme'"),
        (["keys"], "-m local.keys list"),
        (["keys", "STAGE=dev"], "-m infra.keys dev list"),
        (["revoke", "KEY=abc"], "-m local.keys revoke 'abc'"),
    ],
)
def test_keys_are_this_machines_unless_the_command_line_names_a_stage(
    arguments: list[str], command: str
) -> None:
    shown = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "STAGE": "prod"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert shown.stdout.splitlines()[-1].endswith(command)
