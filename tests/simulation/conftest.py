"""Histories on each store, as tests take them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.__main__ import STORES, Tell


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What fails on purpose is not worth a line of log each."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def sqlite() -> Iterator[Tell]:
    with STORES["sqlite"]() as tell:
        yield tell


@pytest.fixture
def dynamodb() -> Iterator[Tell]:
    with STORES["dynamodb"]() as tell:
        yield tell
