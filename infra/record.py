"""What ``chalice deploy`` has made of a stage, as AWS tells it.

Chalice keeps a record of it in the checkout that deployed, written when all is done. A deployment
that was cut off has none, and neither has another checkout: so the record is written anew from
what is there, under the names that Chalice gives. Then a stage can be deployed and removed from
anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.names import Names
from infra.account import Account

FUNCTIONS = {
    "api_handler": "",
    "authorizer": "-authorizer",
    "webhook": "-webhook",
    "webhook_queue": "-webhook_queue",
    "sweeper": "-sweeper",
}
"""Every function by its name in Chalice, and what that adds to the stage's prefix."""

Resource = dict[str, str]

_MISSING = {"NoSuchEntity", "ResourceNotFoundException"}
_API_ID = re.compile(r":execute-api:[^:]*:[^:]*:([a-z0-9]+)/")


def found(account: Account, names: Names) -> list[Resource]:
    """Return what is there of a stage, in the form and order of Chalice's record."""
    return list(_found(account, names))


def write(path: Path, resources: list[Resource]) -> None:
    """Make ``resources`` the record that Chalice goes by."""
    if not resources:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"resources": resources, "schema_version": "2.0", "backend": "api"}
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _found(account: Account, names: Names) -> Iterator[Resource]:
    functions = account.client("lambda")
    iam = account.client("iam")
    arns: dict[str, str] = {}
    for name, suffix in FUNCTIONS.items():
        role_name = f"{names.stack}-{name}"
        role = _unless_missing(lambda role_name=role_name: iam.get_role(RoleName=role_name))
        if role:
            yield {
                "name": f"{name}_role",
                "resource_type": "iam_role",
                "role_arn": role["Role"]["Arn"],
                "role_name": role_name,
            }
        function_name = names.stack + suffix
        function = _unless_missing(
            lambda function_name=function_name: functions.get_function(FunctionName=function_name)
        )
        if function:
            arns[name] = function["Configuration"]["FunctionArn"]
            yield {"name": name, "resource_type": "lambda_function", "lambda_arn": arns[name]}
    if "webhook_queue" in arns:
        yield from _event_sources(functions, names, arns["webhook_queue"])
    rule = f"{names.stack}-sweeper-event"
    if _unless_missing(lambda: account.client("events").describe_rule(Name=rule)):
        yield {"name": "sweeper-event", "resource_type": "cloudwatch_event", "rule_name": rule}
    if "api_handler" in arns:
        yield from _rest_api(functions, names)


def _event_sources(functions: Any, names: Names, function_arn: str) -> Iterator[Resource]:
    mappings = functions.list_event_source_mappings(FunctionName=function_arn)
    for mapping in mappings["EventSourceMappings"]:
        if mapping["EventSourceArn"].endswith(f":{names.queue}"):
            yield {
                "name": "webhook_queue-sqs-event-source",
                "resource_type": "sqs_event",
                "queue_arn": mapping["EventSourceArn"],
                "event_uuid": mapping["UUID"],
                "queue": names.queue,
                "lambda_arn": function_arn,
            }


def _rest_api(functions: Any, names: Names) -> Iterator[Resource]:
    """Yield the API that may invoke the stage's function: every stage's has the same name."""
    policy = _unless_missing(lambda: functions.get_policy(FunctionName=names.stack))
    match = _API_ID.search(policy["Policy"]) if policy else None
    if match:
        yield {"name": "rest_api", "resource_type": "rest_api", "rest_api_id": match.group(1)}


def _unless_missing(ask: Any) -> Any:
    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING:
            return None
        raise
