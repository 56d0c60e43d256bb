"""API keys of a stage on AWS: ``python -m infra.keys STAGE`` issues, lists and revokes them."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Sequence

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


def address_of(account: Account, stage: str) -> str | None:
    """Return the URL of a stage's API, None if it is not deployed."""
    return Deployment(account, stage, print).address()


def main(
    words: Sequence[str] | None = None,
    connect: Callable[[], Account] = Account.current,
    find_address: Callable[[Account, str], str | None] = address_of,
) -> int:
    """Run a command, by default this process's; return 1, after one line, if it fails."""
    parser = argparse.ArgumentParser(prog="python -m infra.keys", description=__doc__)
    parser.add_argument("stage", help="a stage of .chalice/config.json: dev, prod")
    add_commands(parser)
    arguments = parser.parse_args(words)
    try:
        account = connect()
        # Looked up before a key is issued. If this failed afterwards, the key would exist and
        # nobody would have seen it.
        address = find_address(account, arguments.stage)
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
