"""A clock, and AWS in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clock import HandClock
from tests.cloud import Cloud, cloud_on_moto


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cloud(clock: HandClock) -> Iterator[Cloud]:
    with cloud_on_moto(clock) as cloud:
        yield cloud
