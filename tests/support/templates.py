"""The templates, policies and configuration of a stage, with every parameter filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.package import ROOT
from infra.resources import resources_template, substitute
from tests.support.moto import REGION

STAGES = ("dev", "prod")
ACCOUNT = "111122223333"
FUNCTIONS = ("api_handler", "authorizer", "webhook", "webhook_queue", "sweeper")

_PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}


def resources(stage: str) -> dict[str, Any]:
    """Return the resources of the resources stack, every name spelled out."""
    template = resources_template()
    production = stage == "prod"
    resolved: dict[str, Any] = resolve(
        template["Resources"], {"Stage": stage, "AlarmTopic": ""}, {"IsProduction": production}
    )
    return resolved


def resolve(value: Any, parameters: dict[str, str], conditions: dict[str, bool]) -> Any:
    """Return ``value`` with its parameters, pseudo parameters and conditions put in."""
    return substitute(_choose(value, conditions), _PSEUDO | parameters)


def _choose(value: Any, conditions: dict[str, bool]) -> Any:
    """Return ``value`` with every ``Fn::If`` replaced by the branch that its condition takes."""
    if isinstance(value, list):
        return [_choose(item, conditions) for item in value]
    if not isinstance(value, dict):
        return value
    if "Fn::If" in value:
        condition, yes, no = value["Fn::If"]
        return _choose(yes if conditions.get(condition) else no, conditions)
    return {key: _choose(item, conditions) for key, item in value.items()}


def policy_file(stage: str, function: str) -> Path:
    return ROOT / ".chalice" / "policies" / stage / f"{function}.json"


def policy(stage: str, function: str) -> list[dict[str, Any]]:
    """Return the statements of one function's policy."""
    document = json.loads(policy_file(stage, function).read_text(encoding="utf-8"))
    statements: list[dict[str, Any]] = document["Statement"]
    return statements


def config() -> dict[str, Any]:
    """Return Chalice's configuration."""
    found: dict[str, Any] = json.loads((ROOT / ".chalice" / "config.json").read_text("utf-8"))
    return found
