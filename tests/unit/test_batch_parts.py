"""A batch that the dispatcher takes in parts, of which one cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.idempotency import SetOnce
from chalicelib.embedded.folder import DataFolder
from chalicelib.embedded.ipc.client import BATCH_STEP, NOT_TRIED, RemoteTimerStore
from tests.support.factories import new_timer

NEWS = [new_timer()] * (3 * BATCH_STEP)


class FailingStore(RemoteTimerStore):
    """Its dispatcher writes ``parts`` parts of a batch, and fails then."""

    def __init__(self, parts: int) -> None:
        super().__init__(DataFolder(Path("/nonexistent")))
        self.left = parts
        self.asked = 0

    def _write(self, method: str, arguments: dict[str, Any]) -> Any:
        self.asked += 1
        if self.left == 0:
            raise Unavailable("the disk is full")
        self.left -= 1
        return [[None, number, False] for number in range(len(arguments["news"]))]


def test_timers_that_were_stored_before_a_failure_are_acknowledged() -> None:
    store = FailingStore(parts=1)
    results = store.create_many(NEWS)
    assert len(results) == len(NEWS)
    assert all(isinstance(each, SetOnce) for each in results[:BATCH_STEP])
    refused = [each for each in results[BATCH_STEP:] if isinstance(each, Unavailable)]
    assert [each.detail for each in refused] == (
        ["the disk is full"] * BATCH_STEP + [NOT_TRIED] * BATCH_STEP
    )
    assert store.asked == 2


def test_a_batch_of_which_nothing_could_be_written_fails_as_a_whole() -> None:
    with pytest.raises(Unavailable, match="the disk is full"):
        FailingStore(parts=0).create_many(NEWS)
