"""API keys of a stage on AWS: ``python -m infra.keys STAGE`` issues, lists and revokes them."""

from __future__ import annotations

import argparse
import secrets
import sys

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore
from chalicelib.aws.names import Names
from chalicelib.bootstrap import wall_clock
from chalicelib.domain.errors import TimersError
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.service.api_keys import ApiKeys, Issued
from infra.account import Account
from infra.deploy import Deployment
from infra.errors import DeployError
from infra.key_commands import add_commands, run_command


def main() -> int:
    """Run the command in the arguments; print one line and return 1 if it fails."""
    parser = argparse.ArgumentParser(prog="python -m infra.keys", description=__doc__)
    parser.add_argument("stage", help="a stage of .chalice/config.json: dev, prod")
    add_commands(parser)
    arguments = parser.parse_args()
    try:
        account = Account.current()
        # Before a key is issued: if this failed afterwards, there would be a key that nobody has
        # seen.
        address = Deployment(account, arguments.stage, print).address()
        run_command(
            arguments, api_keys_of(account, arguments.stage), address or "<not deployed yet>"
        )
    except DeployError as error:
        return _failed(str(error))
    except TimersError as error:
        return _failed(error.detail)
    except (BotoCoreError, ClientError) as error:
        return _failed(f"AWS refuses: {error}")
    return 0


def api_keys_of(account: Account, stage: str) -> ApiKeys:
    """Return the use cases of a stage's API keys. They need its table."""
    store = DynamoDBApiKeyStore(account.client("dynamodb"), Names(stage).table)
    return ApiKeys(store, wall_clock, secrets.token_bytes)


def first_key(account: Account, stage: str) -> Issued | None:
    """Issue a key for the default tenant; return None if it has one. Raises ``Unavailable``."""
    return api_keys_of(account, stage).issue_first(DEFAULT_TENANT)


def _failed(reason: str) -> int:
    print(f"webhook-timers: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
