"""The commands for API keys: issue, list and revoke, with the lines that they print.

``infra.keys`` runs them on a stage on AWS, and ``local.keys`` on this machine.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from chalicelib.service.api_keys import AUTHORIZER_CACHE_TTL_S, ApiKeys, Issued


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands ``issue TENANT``, ``list`` and ``revoke ID``; ``action`` holds the name."""
    commands = parser.add_subparsers(dest="action", required=True)
    commands.add_parser("issue", help="make a key and print it this once").add_argument("tenant")
    commands.add_parser(
        "list", help="list keys: id, created, tenant (the key itself is not stored)"
    )
    commands.add_parser("revoke", help="revoke a key for good").add_argument("id")


def run_command(arguments: argparse.Namespace, api_keys: ApiKeys, address: str) -> None:
    """Run the command that was given, for the API at ``address``. Raises ``TimersError``."""
    if arguments.action == "issue":
        print(new_key_text(api_keys.issue(arguments.tenant), address))
    elif arguments.action == "list":
        for key in api_keys.list():
            print(f"{key.id}  {_utc(key.created_at)}  {key.tenant}")
    else:
        key = api_keys.revoke(arguments.id)
        print(
            f"The key {key.id} of tenant {key.tenant} is revoked; "
            f"the API refuses it within {AUTHORIZER_CACHE_TTL_S} s."
        )


def new_key_text(issued: Issued, address: str) -> str:
    """Return the lines that show a new key: this once, because only its hash is stored."""
    return (
        f"{issued.text}\n\n"
        f"This is the new key {issued.key.id} of tenant {issued.key.tenant}. It is shown only "
        "once. Try it:\n"
        f"  curl -X POST {address}/timers -H 'Authorization: Bearer {issued.text}' \\\n"
        "    -H 'Content-Type: application/json' "
        """-d '{"seconds": 10, "url": "https://example.com/webhook"}'"""
    )


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")
