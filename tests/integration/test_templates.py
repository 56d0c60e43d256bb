"""The real packages that `chalice package` makes of the app, for both stages."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from app import app
from chalicelib.aws.names import Names
from chalicelib.functions import BATCH_SIZE
from chalicelib.service.api_keys import AUTHORIZER_CACHE_TTL_S
from infra.chalice_record import FUNCTIONS
from infra.errors import DeployError
from infra.package import (
    ANY_METHOD,
    ROOT,
    locked_libraries,
    package,
    packed_libraries,
    require_locked,
)
from infra.resources import TEMPLATE as RESOURCES_TEMPLATE
from tests.e2e_aws.conftest import skip_offline
from tests.support.templates import STAGES, config, policy, resolve

MAX_ZIP_BYTES = 6_000_000
LOGICAL = {
    "api_handler": "APIHandler",
    "authorizer": "Authorizer",
    "webhook": "Webhook",
    "webhook_queue": "WebhookQueue",
    "sweeper": "Sweeper",
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the packages of both stages, made once for the session.

    The shell that makes them has other settings, which must not matter.
    """
    folder = tmp_path_factory.mktemp("packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMERS_AUTH", "none")
        patch.setenv("TIMERS_STAGE", "other")
        for stage in STAGES:
            try:
                package(stage, folder / stage)
            except DeployError as error:
                skip_offline(f"no package can be made, as without a network: {error}")
                raise
    return folder


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def template(packages: Path, stage: str) -> dict[str, Any]:
    document = json.loads((packages / stage / "sam.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = resolve(document, {"Stage": stage}, {})
    return found


@pytest.fixture
def api(template: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = template["Resources"]["RestAPI"]["Properties"]
    return properties


def function(template: dict[str, Any], name: str) -> dict[str, Any]:
    properties: dict[str, Any] = template["Resources"][LOGICAL[name]]["Properties"]
    return properties


def only_event(template: dict[str, Any], name: str) -> dict[str, Any]:
    (event,) = function(template, name)["Events"].values()
    found: dict[str, Any] = event
    return found


def test_functions_are_named_as_chalice_deploy_names_them(
    template: dict[str, Any], stage: str
) -> None:
    names = {name: function(template, name)["FunctionName"] for name in LOGICAL}
    assert names == {name: Names(stage).stack + suffix for name, suffix in FUNCTIONS.items()}
    assert names["webhook"] == Names(stage).webhook_function


def test_only_the_apis_function_has_app_py_as_its_entry(template: dict[str, Any]) -> None:
    handlers = {name: function(template, name)["Handler"] for name in LOGICAL}
    assert handlers == {
        "api_handler": "app.app",
        "authorizer": "chalicelib.functions.authorizer",
        "webhook": "chalicelib.functions.webhook",
        "webhook_queue": "chalicelib.functions.webhook_queue",
        "sweeper": "chalicelib.functions.sweeper",
    }


def test_every_function_has_the_sizes_of_the_configuration(
    template: dict[str, Any], stage: str
) -> None:
    for name, sizes in config()["lambda_functions"].items():
        made = function(template, name)
        assert made["MemorySize"] == sizes["lambda_memory_size"]
        assert made["Timeout"] == sizes["lambda_timeout"]
        assert made["Architectures"] == ["arm64"]
        assert made["Tracing"] == "Active"
        assert made["Environment"] == {"Variables": {"TIMERS_STAGE": stage}}
    reserved = function(template, "sweeper").get("ReservedConcurrentExecutions")
    assert reserved == (1 if stage == "prod" else None)


def test_every_function_has_a_role_and_a_policy_of_its_own(
    template: dict[str, Any], stage: str
) -> None:
    roles = set()
    for name in LOGICAL:
        role = function(template, name)["Role"]["Fn::GetAtt"][0]
        roles.add(role)
        properties = template["Resources"][role]["Properties"]
        assert properties["RoleName"] == f"{Names(stage).stack}-{name}"
        (granted,) = properties["Policies"]
        assert granted["PolicyDocument"]["Statement"] == policy(stage, name)
        (trust,) = properties["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert len(roles) == len(LOGICAL)


def test_the_queue_feeds_its_function_in_batches(template: dict[str, Any], stage: str) -> None:
    event = only_event(template, "webhook_queue")
    assert event["Type"] == "SQS"
    assert event["Properties"] == {
        "Queue": f"arn:aws:sqs:eu-central-1:111122223333:{Names(stage).queue}",
        "BatchSize": BATCH_SIZE,
        "MaximumBatchingWindowInSeconds": 0,
    }


def test_the_sweeper_runs_every_minute_and_a_failed_sweep_is_left_to_the_next(
    template: dict[str, Any], stage: str
) -> None:
    event = only_event(template, "sweeper")
    assert event["Type"] == "Schedule"
    assert event["Properties"] == {
        "Schedule": "rate(1 minute)",
        "Name": f"timers-{stage}-sweeper-event",
    }
    assert function(template, "sweeper")["EventInvokeConfig"]["MaximumRetryAttempts"] == 0


def test_the_api_is_regional_traced_and_throttled(
    template: dict[str, Any], api: dict[str, Any], stage: str
) -> None:
    assert api["StageName"] == stage
    assert api["EndpointConfiguration"] == {"Type": "REGIONAL"}
    assert api["TracingEnabled"]
    (settings,) = api["MethodSettings"]
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")
    limits = template["Mappings"]["Throttling"][stage]
    assert 0 < limits["Burst"] <= limits["RequestsPerSecond"]
    assert settings["ThrottlingRateLimit"]["Fn::FindInMap"][2] == "RequestsPerSecond"
    assert settings["ThrottlingBurstLimit"]["Fn::FindInMap"][2] == "Burst"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("UNAUTHORIZED", 401, "unauthorized"),
        ("ACCESS_DENIED", 401, "unauthorized"),
        ("AUTHORIZER_FAILURE", 503, "unavailable"),
        ("AUTHORIZER_CONFIGURATION_ERROR", 503, "unavailable"),
        ("MISSING_AUTHENTICATION_TOKEN", 404, "route-not-found"),
        ("REQUEST_TOO_LARGE", 413, "body-too-large"),
        ("UNSUPPORTED_MEDIA_TYPE", 415, "unsupported-media-type"),
        ("THROTTLED", 429, "throttled"),
        ("INTEGRATION_TIMEOUT", 503, "unavailable"),
        ("INTEGRATION_FAILURE", 503, "unavailable"),
        ("DEFAULT_4XX", None, "bad-request"),
        ("DEFAULT_5XX", None, "internal"),
    ],
)
def test_responses_of_the_gateway_itself_are_problem_documents(
    api: dict[str, Any], kind: str, status: int | None, code: str
) -> None:
    response = api["GatewayResponses"][kind]
    assert response.get("StatusCode") == status
    headers = response["ResponseParameters"]["Headers"]
    assert headers["Content-Type"] == "'application/problem+json'"
    assert ("Retry-After" in headers) == (status in (429, 503))
    assert headers.get("WWW-Authenticate") == ("'Bearer'" if status == 401 else None)
    text = response["ResponseTemplates"]["application/json"]
    document = json.loads(text.replace("$context.error.messageString", '"as API Gateway says it"'))
    assert document["type"] == f"urn:webhook-timers:{code}"
    assert document.get("status") == status
    assert document["title"]
    assert document["detail"]


def test_a_wrong_method_reaches_the_api_which_responds_405(api: dict[str, Any]) -> None:
    paths = api["DefinitionBody"]["paths"]
    assert set(paths) == set(app.routes)
    for path, operations in paths.items():
        anything = operations[ANY_METHOD]
        assert anything["x-amazon-apigateway-integration"]["type"] == "aws_proxy"
        assert "APIHandler" in str(anything["x-amazon-apigateway-integration"]["uri"])
        assert ("parameters" in anything) == ("{" in path)
        assert "security" not in anything


def test_every_route_except_index_and_health_has_the_authorizer(api: dict[str, Any]) -> None:
    document = api["DefinitionBody"]
    open_paths = {
        path
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != ANY_METHOD and operation.get("security") != [{"authorizer": []}]
    }
    assert open_paths == {"/", "/health", "/openapi.json"}
    scheme = document["securityDefinitions"]["authorizer"]
    assert (scheme["in"], scheme["name"]) == ("header", "Authorization")
    asked = scheme["x-amazon-apigateway-authorizer"]
    assert asked["type"] == "token"
    assert "Authorizer.Arn" in str(asked["authorizerUri"])
    assert asked["authorizerResultTtlInSeconds"] == AUTHORIZER_CACHE_TTL_S <= 60


def test_a_package_fits_its_own_stage_only(template: dict[str, Any], stage: str) -> None:
    parameter = template["Parameters"]["Stage"]
    assert parameter == {"Type": "String", "Default": stage, "AllowedValues": [stage]}


def test_a_packaged_template_fits_into_one_request(packages: Path, stage: str) -> None:
    document = json.loads((packages / stage / "sam.json").read_text(encoding="utf-8"))
    assert len(json.dumps(document, separators=(",", ":"))) <= 51_200


def test_the_code_is_small_and_has_no_unneeded_files(packages: Path, stage: str) -> None:
    code = packages / stage / "deployment.zip"
    assert code.stat().st_size <= MAX_ZIP_BYTES
    with zipfile.ZipFile(code) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    foreign = {
        "pip",
        "setuptools",
        "botocore",
        "boto3",
        "aiohappyeyeballs",
        "greenlet",
        "httptools",
        "yaml",
        "tests",
    }
    foreign |= {"infra", "local", "bench"}
    assert top & foreign == set()
    assert {"app.py", "chalice", "chalicelib", "pydantic", "requests"} <= top
    assert not [name for name in names if "__pycache__" in name]
    native = [name for name in names if name.endswith(".so")]
    assert native
    assert [name for name in native if "aarch64" not in name] == []


def test_a_package_has_the_locked_libraries_and_no_others(packages: Path, stage: str) -> None:
    """Chalice packs itself without its metadata, so it is not among them."""
    locked = locked_libraries(ROOT / "constraints.txt")
    assert packed_libraries(packages / stage / "deployment.zip") == locked
    assert ("urllib3", metadata.version("urllib3")) in locked


def test_the_libraries_that_are_tested_are_the_locked_ones() -> None:
    for name, version in locked_libraries(ROOT / "constraints.txt"):
        assert metadata.version(name) == version, f"{name}: make clean, then make test"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (("idna-3.20",), "lacks urllib3 2.8.0"),
        (("idna-3.20", "urllib3-2.9.0"), "lacks urllib3 2.8.0"),
        (("idna-3.20", "urllib3-2.8.0", "Foo_Bar-1.0"), "has foo-bar 1.0, which"),
    ],
)
def test_a_package_with_other_libraries_than_the_locked_is_refused(
    tmp_path: Path, packed: tuple[str, ...], reason: str
) -> None:
    lock, code = tmp_path / "constraints.txt", tmp_path / "deployment.zip"
    lock.write_text("# a comment\nidna==3.20\nurllib3==2.8.0\n", encoding="utf-8")
    with zipfile.ZipFile(code, "w") as archive:
        for name in packed:
            archive.writestr(f"{name}.dist-info/METADATA", "")
    with pytest.raises(DeployError, match=reason):
        require_locked(lock, code)


def test_cfn_lint_reports_nothing(packages: Path) -> None:
    templates = [RESOURCES_TEMPLATE, *(packages / stage / "sam.json" for stage in STAGES)]
    lint = Path(sys.executable).parent / "cfn-lint"
    checked = subprocess.run(
        [lint, *templates], capture_output=True, text=True, check=False, timeout=300
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
