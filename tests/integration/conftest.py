"""A clock that tests move, and AWS in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.core.config import default_user_config

from tests.support.clock import ManualClock
from tests.support.moto import aws_on_moto
from tests.support.moto_stage import MotoStage, empty_stage


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stage(clock: ManualClock) -> Iterator[MotoStage]:
    with empty_stage(clock) as stage:
        yield stage


@pytest.fixture
def aws() -> Iterator[None]:
    """Be the operator of an empty account."""
    with aws_on_moto() as patch:
        # moto's Lambda would start containers otherwise.
        patch.setitem(default_user_config, "lambda", {"use_docker": False})
        yield
