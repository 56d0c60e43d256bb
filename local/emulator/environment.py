"""The environment of boto3's clients: they call the emulator, and never AWS."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

from chalicelib.domain.errors import InvalidSettings
from chalicelib.settings import is_aws

CLIENT_DEFAULTS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""The variables that every boto3 client needs. No emulator checks their values."""

_ADDRESS = re.compile(r"https?://[^/\s]+/?")


def use_emulator(address: str, environment: MutableMapping[str, str] | None = None) -> None:
    """Prepare ``environment`` (by default this process's) for clients of the emulator.

    The processes that this one starts inherit it. Raises ``InvalidSettings`` if ``address`` cannot
    be an emulator's: a run on this machine never reaches AWS.
    """
    check_address(address)
    variables = os.environ if environment is None else environment
    for name, value in CLIENT_DEFAULTS.items():
        variables.setdefault(name, value)
    # With this variable set, boto3 would ignore AWS_ENDPOINT_URL and call AWS.
    variables.pop("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", None)


def check_address(address: str) -> None:
    """Raise ``InvalidSettings`` unless ``address`` can be an emulator's."""
    if not address:
        raise InvalidSettings(
            "the aws engine runs on this machine against an emulator only: "
            "set AWS_ENDPOINT_URL (make emulator starts one and prints it)"
        )
    if not _ADDRESS.fullmatch(address):
        raise InvalidSettings(
            f"AWS_ENDPOINT_URL={address}: must be a URL like http://127.0.0.1:4566"
        )
    if is_aws(address):
        raise InvalidSettings(f"AWS_ENDPOINT_URL={address}: this is AWS, not an emulator")
