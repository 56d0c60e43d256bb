"""The OpenAPI document says what the code says: routes, limits, fields, errors, examples.

The document is generated, so most of it is true by construction. These tests check the rest: the
parts written by hand, and the parts that API Gateway and the settings repeat elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from chalice.app import Response
from openapi_spec_validator import validate

from app import api, create_app
from chalicelib.bootstrap import Service
from chalicelib.domain import attempt_log as record
from chalicelib.domain import errors, target
from chalicelib.domain.errors import Fault, TimersError
from chalicelib.domain.moment import MAX_DELAY_S
from chalicelib.domain.retry import DEFAULT_DELAYS_S, attempts_allowed
from chalicelib.domain.timer import Status
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.rest import bulk_requests, cursor, list_query, openapi, requests
from chalicelib.rest.catalogue import CATALOGUE, Internal, Throttled
from chalicelib.rest.problems import problem
from chalicelib.rest.reading import MAX_BODY_BYTES
from chalicelib.rest.responses import HEALTHY
from chalicelib.rest.router import Router
from chalicelib.rest.validation import Body
from chalicelib.settings import load
from infra.package import ROOT
from tests.support import document
from tests.support.clock import ManualClock
from tests.support.routes import FakeService
from tests.support.service import service_on

CONTRACT = document.read()
SCHEMAS = CONTRACT["components"]["schemas"]
PROBLEM = "application/problem+json"
BESIDE_THE_TREE: set[type[TimersError]] = {Internal, Throttled}
"""Errors that no use case raises: an internal error, and the limit of API Gateway."""
WITH_A_TEST_CLOCK: set[type[TimersError]] = {errors.ClockMoving, errors.AdvanceUnfinished}
"""Errors of a route that no stage has: test_test_clock_route.py tests its own document."""


def described_responses() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield every response of every operation, and those of unknown paths and methods."""
    for operation in document.operations(CONTRACT):
        for status, response in operation.definition["responses"].items():
            name = f"{operation.method} {operation.path}"
            yield name, int(status), document.resolved(CONTRACT, response)
    for name, status in (("RouteNotFound", 404), ("MethodNotAllowed", 405)):
        yield name, status, CONTRACT["components"]["responses"][name]


def documented(status: int, code: str) -> list[dict[str, Any]]:
    """Return the responses that carry an error of this code under this status."""
    return [
        response
        for _, given, response in described_responses()
        if given == status and code in document.codes(CONTRACT, response)
    ]


def with_subclasses(kind: type[TimersError]) -> Iterable[type[TimersError]]:
    """Yield a kind of error and every one below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from with_subclasses(below)


def example_of(kind: type[TimersError]) -> TimersError:
    if kind is errors.InvalidRequest:
        return errors.InvalidRequest([Fault("seconds", "must be 0 or more")])
    if kind is errors.MethodNotAllowed:
        return errors.MethodNotAllowed(["GET"])
    return errors.Unauthorized() if kind is errors.Unauthorized else kind("because")


ERRORS = sorted(
    {kind for listed in CATALOGUE for kind in with_subclasses(listed)}
    - BESIDE_THE_TREE
    - WITH_A_TEST_CLOCK,
    key=lambda kind: str(kind.__name__),
)


def service(**environment: Any) -> Service:
    return service_on(SQLiteTimerStore.in_memory(), ManualClock(), **environment)


def test_the_document_is_valid() -> None:
    validate(CONTRACT)


def test_its_operations_are_the_routes_of_the_app() -> None:
    app = create_app(service())
    assert {
        (path, method): entry.view_name
        for path, entries in app.routes.items()
        for method, entry in entries.items()
    } == {
        (operation.path, operation.method): operation.definition["operationId"]
        for operation in document.operations(CONTRACT)
    }


def test_it_asks_for_a_key_where_the_app_does() -> None:
    with_keys = create_app(service(TIMERS_AUTH="keys"))
    for operation in document.operations(CONTRACT):
        guarded = with_keys.routes[operation.path][operation.method].authorizer is not None
        assert ("security" in operation.definition) is guarded
        assert ("401" in operation.definition["responses"]) is guarded


def test_parameters_in_a_path_are_those_of_the_route() -> None:
    for path, item in CONTRACT["paths"].items():
        named = [document.resolved(CONTRACT, each)["name"] for each in item.get("parameters", [])]
        assert all(f"{{{name}}}" in path for name in named)
        assert len(named) == path.count("{")


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_response_is_documented(kind: type[TimersError]) -> None:
    made = problem(example_of(kind))
    found = documented(made.status_code, kind.code)
    assert found
    for described in found:
        schema = described["content"][PROBLEM]["schema"]
        assert document.faults(CONTRACT, schema, json.loads(made.body)) == []
        for name, header in described.get("headers", {}).items():
            required = document.resolved(CONTRACT, header).get("required", False)
            assert name in made.headers or not required


def test_no_error_is_documented_that_the_code_does_not_have() -> None:
    codes = {
        code
        for _, _, response in described_responses()
        for code in document.codes(CONTRACT, response)
    }
    assert codes == {kind.code for kind in [*ERRORS, *BESIDE_THE_TREE]}


def test_the_page_of_errors_lists_the_same_codes() -> None:
    rows = re.findall(
        r"^\| (\d{3}) \| (`[^|]+`) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE
    )
    assert {(int(status), code) for status, names in rows for code in names.split("`")[1::2]} == {
        (status, code)
        for _, status, response in described_responses()
        for code in document.codes(CONTRACT, response)
    } | {(409, kind.code) for kind in WITH_A_TEST_CLOCK}


def test_an_internal_error_is_documented() -> None:
    made = problem(Internal())
    for described in documented(500, "internal"):
        schema = described["content"][PROBLEM]["schema"]
        assert document.faults(CONTRACT, schema, json.loads(made.body)) == []


def test_responses_of_api_gateway_itself_are_documented() -> None:
    template = json.loads((ROOT / "infra" / "package.json").read_text())
    responses = template["Resources"]["RestAPI"]["Properties"]["GatewayResponses"]
    for name, response in responses.items():
        if name.startswith("DEFAULT_"):
            continue  # whose status is any: the document says so in words
        problem = json.loads(response["ResponseTemplates"]["application/json"])
        found = documented(int(response["StatusCode"]), problem["type"].removeprefix(document.URN))
        assert found
        for described in found:
            assert document.faults(CONTRACT, described["content"][PROBLEM]["schema"], problem) == []


def test_every_operation_documents_the_errors_that_any_request_can_meet() -> None:
    for operation in document.operations(CONTRACT):
        responses = operation.definition["responses"].keys()
        # The health may be asked for from any site.
        refused: set[str] = set() if operation.path == "/health" else {"403"}
        assert responses >= refused | {"400", "413", "422", "429", "500", "503"}
        reads_a_body = "requestBody" in operation.definition
        assert ("415" in responses) is reads_a_body
        assert ("404" in responses) is ("{" in operation.path)


@pytest.mark.parametrize(("name", "status", "response"), list(described_responses()))
def test_every_response_has_a_valid_example(
    name: str, status: int, response: dict[str, Any]
) -> None:
    assert ("content" in response) is (status != 204)
    for media_type, content in response.get("content", {}).items():
        assert (media_type == PROBLEM) is (status >= 400)
        examples = document.examples(content)
        assert examples
        for example in examples:
            assert document.faults(CONTRACT, content["schema"], example) == []
            if media_type == PROBLEM:
                title = example["type"].removeprefix(document.URN).replace("-", " ")
                assert example["title"] == title.capitalize()
        if media_type == PROBLEM:
            shown = {example["type"].removeprefix(document.URN) for example in examples}
            assert shown == document.codes(CONTRACT, response)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("SetTimer", requests.SetTimer),
        ("MoveTimer", requests.MoveTimer),
        ("ReplayTimers", bulk_requests.ReplayTimers),
    ],
)
def test_a_body_has_the_fields_and_defaults_of_its_model(name: str, model: type[Body]) -> None:
    said, meant = SCHEMAS[name], model.model_json_schema()
    assert said["properties"].keys() == meant["properties"].keys()
    assert said.get("required", []) == meant.get("required", [])
    assert said["additionalProperties"] is meant["additionalProperties"] is False
    for field, schema in said["properties"].items():
        assert schema.get("default") == meant["properties"][field].get("default")


def test_examples_of_bodies_are_accepted() -> None:
    parsers = {
        "set_timer": requests.SetTimer.parse,
        "move_timer": requests.MoveTimer.parse,
        "replay_timers": bulk_requests.ReplayTimers.parse,
        "set_timers": bulk_requests.SetTimers.parse,
        "set_keyed_timer": requests.SetKeyedTimer.parse,
        "cancel_timers": bulk_requests.ChangeTimers.parse,
        "fire_timers": bulk_requests.ChangeTimers.parse,
        "move_timers": bulk_requests.MoveTimers.parse,
    }
    for operation in document.operations(CONTRACT):
        if "requestBody" not in operation.definition:
            continue
        content = operation.definition["requestBody"]["content"]["application/json"]
        assert document.examples(content)
        for example in document.examples(content):
            assert document.faults(CONTRACT, content["schema"], example) == []
            parsers[operation.definition["operationId"]](json.dumps(example).encode())


def test_the_example_of_the_index_is_the_index() -> None:
    content = _operation("index")["responses"]["200"]["content"]["application/json"]
    assert content["example"] == {"routes": api.names(load({}))}


def test_limits_are_those_of_the_code() -> None:
    settings = load({})
    policy = SCHEMAS["SetTimer"]["properties"]
    pace = SCHEMAS["ReplayTimers"]["properties"]["per_second"]
    query = {each["name"]: each["schema"] for each in _operation("list_timers")["parameters"]}
    attempts = _operation("list_attempts")["responses"]["200"]["content"]["application/json"]
    assert SCHEMAS["Seconds"]["maximum"] == MAX_DELAY_S
    assert SCHEMAS["Minutes"]["maximum"] * 60 == MAX_DELAY_S
    assert SCHEMAS["Hours"]["maximum"] * 3600 == MAX_DELAY_S
    assert SCHEMAS["TimeLeft"]["maximum"] == MAX_DELAY_S
    assert pace["minimum"] == bulk_requests.MIN_REPLAYS_PER_S
    assert pace["maximum"] == bulk_requests.MAX_REPLAYS_PER_S
    assert SCHEMAS["Url"]["maxLength"] == target.MAX_URL_CHARACTERS
    assert SCHEMAS["Id"]["maximum"] == cursor.MAX_ID
    assert SCHEMAS["Status"]["enum"] == [status.value for status in Status]
    assert policy["max_attempts"]["maximum"] == attempts_allowed(DEFAULT_DELAYS_S)
    assert policy["timeout"]["maximum"] == settings.send_timeout_s
    assert (query["limit"]["maximum"], query["limit"]["default"]) == (
        list_query.MAX_LIMIT,
        list_query.DEFAULT_LIMIT,
    )
    assert attempts["schema"]["maxItems"] == record.MAX_ATTEMPTS_KEPT
    assert (
        f"{MAX_BODY_BYTES:,}" in CONTRACT["components"]["responses"]["BodyTooLarge"]["description"]
    )


def test_two_responses_of_different_errors_cannot_have_one_name() -> None:
    router = Router[FakeService]()
    for path, raises in [
        ("/a", (errors.TimerInFlight,)),
        ("/b", (errors.TimerInFlight, errors.TimerChanged)),
    ]:
        router.post(path, returns=HEALTHY, raises=raises)(lambda _service, _request: Response(""))
    with pytest.raises(ValueError, match="TimerInFlight"):
        openapi.document(router.routes)


def _operation(name: str) -> Any:
    (found,) = [
        operation.definition
        for operation in document.operations(CONTRACT)
        if operation.definition["operationId"] == name
    ]
    return found
