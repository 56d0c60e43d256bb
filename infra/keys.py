"""The keys of a stage's callers: ``python -m infra.keys`` makes, lists and revokes them."""

from __future__ import annotations

import argparse
import secrets
import sys

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore
from chalicelib.aws.names import Names
from chalicelib.domain.errors import TimersError
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.service.api_keys import ApiKeys, Issued
from chalicelib.wiring import wall_clock
from infra.account import Account
from infra.deploy import Deployment
from infra.errors import DeployError
from local.keys import add_actions, carry_out


def main() -> int:
    """Do what the command line asks for; return 1, with one line, when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m infra.keys", description=__doc__)
    parser.add_argument("stage", help="a stage of .chalice/config.json: dev, prod")
    add_actions(parser)
    arguments = parser.parse_args()
    try:
        account = Account.current()
        # Asked for first: a key whose address could not be told would not be shown.
        address = Deployment(account, arguments.stage, print).address()
        carry_out(arguments, callers(account, arguments.stage), address or "<not deployed yet>")
    except DeployError as error:
        return _failed(str(error))
    except TimersError as error:
        return _failed(error.detail)
    except (BotoCoreError, ClientError) as error:
        return _failed(f"AWS refuses: {error}")
    return 0


def callers(account: Account, stage: str) -> ApiKeys:
    """Return the use cases of a stage's keys. Its table must be there."""
    store = DynamoDBApiKeyStore(account.client("dynamodb"), Names(stage).table)
    return ApiKeys(store, wall_clock, secrets.token_bytes)


def first_key(account: Account, stage: str) -> Issued | None:
    """Make a key for the default tenant, unless it has one. Raises ``Unavailable``.

    ``local.keys.shown`` tells of it: with a stage's address it is all that a new stage needs.
    """
    return callers(account, stage).issue_first(DEFAULT_TENANT)


def _failed(reason: str) -> int:
    print(f"webhook-timers: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
