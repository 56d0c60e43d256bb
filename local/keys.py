"""The keys of callers: ``python -m local.keys`` makes, lists and revokes those of this machine.

It works while the server runs. ``infra.keys`` does the same for a stage on AWS.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime, timezone

from chalicelib import wiring
from chalicelib.domain.errors import TimersError
from chalicelib.service.api_keys import AUTHORIZER_CACHE_TTL_S, ApiKeys, Issued
from chalicelib.settings import AWS
from local.address import url


def main() -> int:
    """Do what the command line asks for; return 1, with one line, when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m local.keys", description=__doc__)
    add_actions(parser)
    arguments = parser.parse_args()
    try:
        settings = wiring.settings()
        if settings.engine == AWS:
            wiring.use_emulator()
        carry_out(arguments, wiring.callers(), url(settings))
        if arguments.action == "issue" and not settings.needs_key:
            print("The server asks for keys where it is started with TIMERS_AUTH=keys make run")
    except TimersError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return 1
    return os.EX_OK


def add_actions(parser: argparse.ArgumentParser) -> None:
    """Add what can be asked for: ``issue TENANT``, ``list``, ``revoke ID``."""
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("issue", help="make a key, and print it this once").add_argument("tenant")
    actions.add_parser("list", help="list the keys, which themselves are not known")
    actions.add_parser("revoke", help="make a key worthless").add_argument("id")


def carry_out(arguments: argparse.Namespace, callers: ApiKeys, address: str) -> None:
    """Do what was asked for, for the API at ``address``. Raises ``TimersError``."""
    if arguments.action == "issue":
        issued = callers.issue(arguments.tenant)
        print(shown(issued, address))
    elif arguments.action == "list":
        for key in callers.list():
            print(f"{key.id}  {_moment(key.created_at)}  {key.tenant}")
    else:
        key = callers.revoke(arguments.id)
        print(
            f"The key {key.id} of tenant {key.tenant} is revoked; "
            f"within {AUTHORIZER_CACHE_TTL_S} s it opens nothing any more."
        )


def shown(issued: Issued, address: str) -> str:
    """Return what tells of a new key. It cannot be told again: only its hash is kept."""
    return (
        f"{issued.text}\n\n"
        f"The new key {issued.key.id} of tenant {issued.key.tenant}; it is shown this once. Try:\n"
        f"  curl -X POST {address}/timers -H 'Authorization: Bearer {issued.text}' \\\n"
        "    -H 'Content-Type: application/json' "
        """-d '{"seconds": 10, "url": "https://example.com/webhook"}'"""
    )


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
