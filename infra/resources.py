"""The resources of ``resources.yaml``: the template, and the calls that make them on an emulator.

On AWS, CloudFormation makes them (``make infra``). An emulator starts empty, and so does moto in
the tests. There boto3 makes the table, the queues and the schedule group from the same file.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import CreateTableInputTypeDef
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

TEMPLATE = Path(__file__).resolve().parent / "resources.yaml"

# Backups, deletion protection, encryption and redrive permissions are left out: they protect data
# on AWS, and not every emulator knows them.
_TABLE_PROPERTIES = (
    "TableName",
    "BillingMode",
    "AttributeDefinitions",
    "KeySchema",
    "GlobalSecondaryIndexes",
)
_QUEUE_ATTRIBUTES: tuple[QueueAttributeNameType, ...] = (
    "VisibilityTimeout",
    "MessageRetentionPeriod",
    "RedrivePolicy",
)


def resources_template() -> dict[str, Any]:
    """Return the CloudFormation template. It is a copy, which the caller may change."""
    return copy.deepcopy(_parsed_template())


def substitute(value: Any, known: Mapping[str, str]) -> Any:
    """Return ``value`` with every reference to a name in ``known`` replaced by its text.

    References are ``Ref``, ``Fn::Sub`` and ``Fn::GetAtt``. An attribute has a dotted name, such as
    ``DeadLetters.Arn``. A reference to any other name stays as it is.
    """
    if isinstance(value, list):
        return [substitute(item, known) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("Fn::Sub"), str):
        text: str = value["Fn::Sub"]
        for name, replacement in known.items():
            text = text.replace(f"${{{name}}}", replacement)
        return text
    reference: str = ".".join(value.get("Fn::GetAtt", ())) or value.get("Ref", "")
    if reference in known:
        return known[reference]
    return {key: substitute(item, known) for key, item in value.items()}


def table_definition(stage: str) -> CreateTableInputTypeDef:
    """Return the arguments of boto3's ``create_table`` for a stage's table."""
    properties = _properties("Table", stage)
    definition: Any = copy.deepcopy({name: properties[name] for name in _TABLE_PROPERTIES})
    created: CreateTableInputTypeDef = definition
    return created


def create_table(dynamodb: DynamoDBClient, stage: str) -> None:
    """Make a stage's table with its TTL. Return once it can be used."""
    definition = table_definition(stage)
    name = definition["TableName"]
    dynamodb.create_table(**definition)
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    dynamodb.update_time_to_live(
        TableName=name,
        TimeToLiveSpecification=_properties("Table", stage)["TimeToLiveSpecification"],
    )


def create_missing(
    dynamodb: DynamoDBClient,
    sqs: SQSClient,
    scheduler: EventBridgeSchedulerClient,
    stage: str,
    *,
    visibility_s: int | None = None,
) -> None:
    """Make the resources of ``stage`` that are missing, and leave the others as they are.

    ``visibility_s`` replaces the queue's visibility timeout (seconds). Raises the errors of boto3.
    """
    dead_letters = _create_queue(sqs, _properties("DeadLetters", stage))
    queue = substitute(_properties("Queue", stage), {"DeadLetters.Arn": dead_letters})
    if visibility_s is not None:
        queue["VisibilityTimeout"] = visibility_s
    _create_queue(sqs, queue)
    with contextlib.suppress(scheduler.exceptions.ConflictException):
        scheduler.create_schedule_group(Name=_properties("ScheduleGroup", stage)["Name"])
    # The API is healthy as soon as there is a table, so everything else must be there before it.
    try:
        dynamodb.describe_table(TableName=_properties("Table", stage)["TableName"])
    except dynamodb.exceptions.ResourceNotFoundException:
        create_table(dynamodb, stage)


def _create_queue(sqs: SQSClient, properties: Mapping[str, Any]) -> str:
    """Make a queue unless it exists; return its ARN."""
    name: str = properties["QueueName"]
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        attributes: dict[QueueAttributeNameType, str] = {
            attribute: _text(properties[attribute])
            for attribute in _QUEUE_ATTRIBUTES
            if attribute in properties
        }
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return found["Attributes"]["QueueArn"]


def _text(value: Any) -> str:
    """Return the text of an attribute, as SQS expects it for numbers and documents too."""
    return value if isinstance(value, str) else json.dumps(value)


@functools.lru_cache(maxsize=1)
def _parsed_template() -> dict[str, Any]:
    # Parsing takes 50 ms, and tests make the resources hundreds of times.
    template: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    return template


@functools.lru_cache(maxsize=64)
def _properties(resource: str, stage: str) -> dict[str, Any]:
    """Return a resource's properties for one stage. The cache has them too: do not change them."""
    properties = _parsed_template()["Resources"][resource]["Properties"]
    resolved: dict[str, Any] = substitute(properties, {"Stage": stage})
    return resolved
