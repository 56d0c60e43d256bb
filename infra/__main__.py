"""``python -m infra`` brings a stage up on AWS and takes it down; make calls it."""

from __future__ import annotations

import argparse
import sys

from botocore.exceptions import BotoCoreError, ClientError

from infra.account import Account
from infra.deploy import Deployment
from infra.errors import DeployError
from infra.package import ROOT, package


def main() -> int:
    """Do what the command line asks for; return 1, with one line, when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m infra", description=__doc__)
    parser.add_argument("action", choices=["infra", "deploy", "package", "release", "destroy"])
    parser.add_argument("stage", help="a stage of .chalice/config.json: dev, prod")
    parser.add_argument("--alarm-topic", help="ARN of the SNS topic that hears of alarms")
    arguments = parser.parse_args()
    try:
        _run(arguments.action, arguments.stage, arguments.alarm_topic)
    except DeployError as error:
        return _failed(str(error))
    except (BotoCoreError, ClientError) as error:
        return _failed(f"AWS refuses: {error}")
    return 0


def _run(action: str, stage: str, alarm_topic: str | None) -> None:
    folder = ROOT / "dist" / stage
    if action == "package":
        package(stage, folder)
        _say(f"{folder} has the template and the code")
        return
    account = Account.current()
    _say(f"AWS account {account.id}, {account.region}, stage {stage}")
    deployment = Deployment(account, stage, _say)
    if action == "infra":
        deployment.make_resources(alarm_topic)
    elif action == "deploy":
        _show(deployment.deploy())
    elif action == "release":
        _show(deployment.release(folder))
    else:
        deployment.destroy()


def _show(url: str) -> None:
    _say(f"\nThe API answers at {url}\n")
    _say(
        f"curl -X POST {url}/timers -H 'Content-Type: application/json' "
        """-d '{"seconds": 10, "url": "https://example.com/webhook"}'"""
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _failed(reason: str) -> int:
    print(f"webhook-timers: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
