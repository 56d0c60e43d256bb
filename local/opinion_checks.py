"""What the tools of ``make second-opinions`` do: runs in their virtual environment, not in ours.

``expand`` writes a SAM template as CloudFormation sees it, ``lint`` prints the findings on IAM
policies as JSON, and ``call`` answers one request with an unpacked package.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def expand(source: str, target: str) -> None:
    """Expand the SAM template ``source`` into ``target``."""
    transform = importlib.import_module("samtranslator.translator.transform").transform
    template = json.loads(Path(source).read_text(encoding="utf-8"))
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = {"Bucket": "packages", "Key": "deployment.zip"}
    expanded = transform(template, {}, _NoManagedPolicies())
    Path(target).write_text(json.dumps(expanded), encoding="utf-8")


def lint(*policies: str) -> None:
    """Print the findings on each policy: ``[file, issue, location]``."""
    analyse = importlib.import_module("parliament").analyze_policy_string
    found = [
        [policy, finding.issue, str(finding.location)]
        for policy in policies
        for finding in analyse(
            Path(policy).read_text(encoding="utf-8"), include_community_auditors=True
        ).findings
    ]
    print(json.dumps(found))


def call(package: str) -> None:
    """Answer ``GET /`` with the code in the folder ``package``, and print the status."""
    sys.path.insert(0, package)
    request: dict[str, Any] = {
        "httpMethod": "GET",
        "resource": "/",
        "path": "/",
        "requestContext": {"httpMethod": "GET", "resourcePath": "/", "path": "/"},
        "headers": {},
        "multiValueHeaders": {},
        "isBase64Encoded": False,
    }
    request |= dict.fromkeys(
        (
            "queryStringParameters",
            "multiValueQueryStringParameters",
            "pathParameters",
            "body",
            "stageVariables",
        )
    )
    response = importlib.import_module("app").app(request, _Context())
    versions = {name: importlib.import_module(name).__version__ for name in ("boto3", "urllib3")}
    print(json.dumps({"status": response["statusCode"], **versions}))


class _NoManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


class _Context:
    aws_request_id = "second-opinion"
    function_name = "timers-dev"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:timers-dev"

    def get_remaining_time_in_millis(self) -> int:
        return 20_000


if __name__ == "__main__":
    checks: dict[str, Callable[..., None]] = {"expand": expand, "lint": lint, "call": call}
    checks[sys.argv[1]](*sys.argv[2:])
