"""Chalice's record of the resources that it deployed for a stage, rebuilt from AWS.

Chalice writes its record into the checkout, after the last step of a deployment. An interrupted
deployment leaves none, and other checkouts have none either. But Chalice gives its resources fixed
names, so they can be found on AWS. With the rebuilt record, a stage can be deployed and removed
from any checkout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
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
"""The functions by their names in Chalice. On AWS, a name is the stack's name and this suffix."""

Resource = dict[str, str]
"""One entry of the record."""

_NOT_FOUND_CODES = {"NoSuchEntity", "ResourceNotFoundException"}
_API_ID = re.compile(r":execute-api:[^:]*:[^:]*:([a-z0-9]+)/")


def found(account: Account, names: Names) -> list[Resource]:
    """Return the resources of a stage that exist, in the form and order of Chalice's record."""
    return list(_found(account, names))


def write(path: Path, resources: list[Resource]) -> None:
    """Write the record to ``path``, where Chalice reads it. Without resources, remove it."""
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
    # Chalice deletes in the reverse order of its record, so what others need comes first: the role
    # before its function, the functions before their triggers.
    for name, suffix in FUNCTIONS.items():
        role_name = f"{names.stack}-{name}"
        role = unless_missing(partial(iam.get_role, RoleName=role_name))
        if role:
            yield {
                "name": f"{name}_role",
                "resource_type": "iam_role",
                "role_arn": role["Role"]["Arn"],
                "role_name": role_name,
            }
        function_name = names.stack + suffix
        function = unless_missing(partial(functions.get_function, FunctionName=function_name))
        if function:
            arns[name] = function["Configuration"]["FunctionArn"]
            yield {"name": name, "resource_type": "lambda_function", "lambda_arn": arns[name]}
    if "webhook_queue" in arns:
        yield from _event_sources(functions, names, arns["webhook_queue"])
    rule = f"{names.stack}-sweeper-event"
    if unless_missing(partial(account.client("events").describe_rule, Name=rule)):
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
    """Yield the API of the stage.

    Chalice gives the APIs of all stages the same name. The policy of the stage's function has the
    id of the right one, which may invoke the function.
    """
    policy = unless_missing(partial(functions.get_policy, FunctionName=names.stack))
    match = _API_ID.search(policy["Policy"]) if policy else None
    if match:
        yield {"name": "rest_api", "resource_type": "rest_api", "rest_api_id": match.group(1)}


def unless_missing(call: Callable[[], Any]) -> Any:
    """Return the result of a call of boto3, None if the resource does not exist."""
    try:
        return call()
    except ClientError as error:
        if error.response["Error"]["Code"] in _NOT_FOUND_CODES:
            return None
        raise
