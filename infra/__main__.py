"""``python -m infra`` brings a stage up on AWS and takes it down. The targets of make call it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.errors import TimersError
from chalicelib.domain.timer import DEFAULT_TENANT
from infra.account import Account
from infra.deploy import Deployment
from infra.errors import DeployError
from infra.key_commands import new_key_text
from infra.keys import first_key
from infra.package import ROOT, is_open, package
from infra.signing_secrets import new_secret

ACTIONS = ("infra", "deploy", "package", "release", "rearm", "destroy")


def main(words: Sequence[str] | None = None, deployment_type: type[Deployment] = Deployment) -> int:
    """Run an action, by default this process's; return 1, after one line, if it fails."""
    parser = argparse.ArgumentParser(prog="python -m infra", description=__doc__)
    parser.add_argument("action", choices=[*ACTIONS, "secret"])
    parser.add_argument("stage", nargs="?", help="a stage of .chalice/config.json: dev, prod")
    parser.add_argument("--alarm-topic", help="ARN of the SNS topic that receives the alarms")
    parser.add_argument("--confirm", help="destroy prod: its account and region, as 123…/eu-…")
    parser.add_argument("--from", dest="source", help="release: the package that this stage runs")
    parser.add_argument("--finish", action="store_true", help="secret: drop the old one")
    arguments = parser.parse_args(words)
    stage: str | None = arguments.stage
    if stage is None and (arguments.action != "secret" or arguments.finish):
        parser.error("name a stage (STAGE=dev)")
    try:
        if stage is None:
            _print_new_secret()
        elif arguments.action == "secret":
            _rotate_secret(stage, finish=arguments.finish)
        else:
            _run(arguments.action, stage, arguments, deployment_type)
    except DeployError as error:
        return _failed(str(error))
    except TimersError as error:
        # Only the last step raises this: it issues the first key of a new stage.
        return _failed(f"{error.detail} Everything else is done: make key STAGE={stage} continues.")
    except (BotoCoreError, ClientError) as error:
        return _failed(f"AWS refuses: {error}")
    return 0


def _print_new_secret() -> None:
    """Print a signing secret for the offline server: the only text on the standard output."""
    _say(new_secret())
    _note(
        "Keep it in a file that only you can read, for the server and for the receivers:\n"
        "  TIMERS_SIGNING_SECRETS_FILE=that-file make run\n"
        "To rotate, put a new one on a line above it and restart the server; remove the old line "
        "when every receiver has the new one."
    )


def _rotate_secret(stage: str, *, finish: bool) -> None:
    """Add a new signing secret to a stage, or drop the old one.

    The new secret is the only text on the standard output.
    """
    account = Account.current()
    _note(f"AWS account {account.id}, {account.region}, stage {stage}")
    parameter = Deployment(account, stage, _note).secrets
    if finish:
        parameter.finish()
        return
    parameter.rotate(show=_say)
    _note(
        "Give it to the receivers after those five minutes. When all have it:\n"
        f"  make secret STAGE={stage} FINISH=1"
    )


def _run(
    action: str, stage: str, arguments: argparse.Namespace, deployment_type: type[Deployment]
) -> None:
    folder = ROOT / "dist" / stage
    if action == "package":
        package(stage, folder)
        _say(f"{folder} has the template and the code")
        if is_open(stage):
            _say(_warning(stage))
        return
    account = Account.current()
    _say(f"AWS account {account.id}, {account.region}, stage {stage}")
    deployment = deployment_type(account, stage, _say)
    if action == "infra":
        deployment.make_resources(arguments.alarm_topic)
    elif action == "deploy":
        _show(deployment, deployment.deploy())
    elif action == "release":
        _show(deployment, deployment.release(folder, arguments.source))
    elif action == "rearm":
        deployment.rearm()
    else:
        deployment.destroy(arguments.confirm)


def _show(deployment: Deployment, url: str) -> None:
    """Print how to call a deployed stage, with a new key if it has none."""
    _say(f"\nThe API answers at {url}\n")
    if deployment.is_open:
        _say(f"{_warning(deployment.stage)}\n\n{_curl(url)}")
        return
    issued = first_key(deployment.account, deployment.stage)
    if issued is not None:
        _say(new_key_text(issued, url))
        return
    _say(
        f"It has API keys already, which cannot be shown again. With one of them in KEY:\n"
        f"""  {_curl(url, ' -H "Authorization: Bearer $KEY"')}\n"""
        f"Make another with: make key STAGE={deployment.stage} TENANT={DEFAULT_TENANT}"
    )


def _curl(url: str, header: str = "") -> str:
    return (
        f"curl -X POST {url}/timers{header} -H 'Content-Type: application/json' "
        """-d '{"seconds": 10, "url": "https://example.com/webhook"}'"""
    )


def _warning(stage: str) -> str:
    return (
        f"WARNING: {stage} asks for no key (TIMERS_AUTH=none in .chalice/config.json). Whoever "
        "knows its URL can set timers, and read and delete those of everybody else."
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _note(line: str) -> None:
    """Print to the standard error, so that a file with the output has nothing but the secret."""
    print(line, file=sys.stderr, flush=True)


def _failed(reason: str) -> int:
    print(f"webhook-timers: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as shells do for SIGINT: 128 + 2
