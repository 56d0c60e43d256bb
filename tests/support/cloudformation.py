"""Deployments on moto, with what AWS does and moto does not.

CloudFormation keeps the resources whose template says Retain, imports resources that exist already,
and fails for a queue that was removed less than a minute ago. Lambda takes a setting of recursive
loops. moto has no parameters for these, so its stacks and the calls of boto3 are changed.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto.backends import get_backend

from infra.stacks import QUEUE_NAME_TAKEN
from tests.support.moto import REGION

ACCOUNT = "123456789012"


def stack(name: str, region: str = REGION) -> Any:
    """Return moto's own object of a stack."""
    stacks = get_backend("cloudformation")[ACCOUNT][region].stacks
    return next(each for each in stacks.values() if each.name == name)


def keep_retained(name: str) -> None:
    """Make moto keep the resources of a stack that CloudFormation would keep."""
    for resource in stack(name).resource_map._resource_json_map.values():
        if resource.get("DeletionPolicy", "").startswith("Retain"):
            resource["DeletionPolicy"] = "Retain"


def import_existing_tables(session: boto3.Session) -> None:
    """Make change sets import tables that exist, if they ask for that."""

    def leave_out_tables(params: dict[str, Any], **_: Any) -> None:
        if not params.get("ImportExistingResources"):
            return
        template = json.loads(params["TemplateBody"])
        for name, resource in list(template["Resources"].items()):
            if resource["Type"] == "AWS::DynamoDB::Table" and _is_there(resource):
                # moto cannot import: to it, the table is not the stack's.
                del template["Resources"][name]
        params["TemplateBody"] = json.dumps(template)

    session.events.register(
        "provide-client-params.cloudformation.CreateChangeSet", leave_out_tables
    )


def fail_once_for_a_removed_queue(session: boto3.Session) -> None:
    """Make the next creation of a stack fail, because its queue's name is not free yet."""
    failures = iter([f"You must wait {QUEUE_NAME_TAKEN} before you can create another"])

    def fail(parsed: dict[str, Any], **_: Any) -> None:
        reason = next(failures, None)
        if reason is None:
            return
        created = next(iter(get_backend("cloudformation")[ACCOUNT][REGION].stacks.values()))
        created._add_stack_event("ROLLBACK_COMPLETE", resource_status_reason=reason)
        created.status = "ROLLBACK_COMPLETE"

    session.events.register("after-call.cloudformation.ExecuteChangeSet", fail)


def accept_recursion_configs(session: boto3.Session) -> list[dict[str, Any]]:
    """Accept the setting of recursive loops, which moto does not know; return what is set."""
    seen: list[dict[str, Any]] = []

    # A handler of this event may return the response, which the types of boto3 do not know.
    def accept(params: dict[str, Any], **_: Any) -> Any:
        seen.append({"path": params["url_path"], **json.loads(params["body"])})
        return SimpleNamespace(status_code=200), {}

    session.events.register("before-call.lambda.PutFunctionRecursionConfig", accept)
    return seen


def _is_there(resource: dict[str, Any]) -> bool:
    try:
        boto3.client("dynamodb").describe_table(TableName=resource["Properties"]["TableName"])
    except ClientError:
        return False
    return True
