"""AWS in this process, by moto: while a test uses it, no client reaches AWS itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

REGION = "eu-central-1"

_respond = BotocoreStubber.__call__
_one_at_a_time = threading.RLock()


def _respond_alone(stubber: BotocoreStubber, *args: Any, **kwargs: Any) -> Any:
    """Respond while no other thread does: moto copies items that another call may change."""
    with _one_at_a_time:
        return _respond(stubber, *args, **kwargs)


@contextmanager
def aws_on_moto() -> Iterator[pytest.MonkeyPatch]:
    """Be the operator of an empty account in ``REGION``.

    Yields a patch that ends with the account, for what else a test must set in the interpreter.
    """
    # boto3 reads credentials and region from the environment, and so does moto.
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setattr(BotocoreStubber, "__call__", _respond_alone)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        yield patch
