"""The watchdog: when an API counts as hanging."""

from __future__ import annotations

import pytest

from local.watchdog import MAX_SILENT, STARTING_CHECKS, Watchdog, checks_of


def after(*responses: bool, workers: int = 1) -> Watchdog:
    """Return a watchdog that has made one check for each of ``responses``."""
    remaining = iter(responses)
    watchdog = Watchdog(lambda: next(remaining), workers, pause=lambda _seconds: None)
    for _ in responses:
        watchdog.check()
    return watchdog


def test_an_api_that_responds_does_not_hang() -> None:
    assert not after().api_hangs
    assert not after(*[True] * 20).api_hangs


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_single_late_response_is_no_hang(workers: int) -> None:
    silent = [False] * (MAX_SILENT - 1)
    assert not after(True, *silent, workers=workers).api_hangs
    assert not after(
        True, *silent, *[True] * checks_of(workers), *silent, workers=workers
    ).api_hangs


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_an_api_without_responses_hangs(workers: int) -> None:
    assert after(*[True] * 20, *[False] * MAX_SILENT, workers=workers).api_hangs


def test_one_hanging_worker_of_four_is_found() -> None:
    assert after(*[True, True, True, False] * MAX_SILENT, workers=4).api_hangs


def test_a_restarted_api_is_not_blamed_for_the_one_before() -> None:
    watchdog = after(*[False] * MAX_SILENT)
    watchdog.forget()
    assert not watchdog.api_hangs


def test_a_restarted_api_has_time_to_start() -> None:
    responses = iter([False] * STARTING_CHECKS + [True] + [False] * MAX_SILENT)
    watchdog = Watchdog(lambda: next(responses), 1, pause=lambda _seconds: None)
    watchdog.forget()
    for _ in range(STARTING_CHECKS + MAX_SILENT):
        watchdog.check()
        assert not watchdog.api_hangs
    watchdog.check()
    assert watchdog.api_hangs


def test_an_api_that_never_starts_again_hangs() -> None:
    watchdog = Watchdog(lambda: False, 1, pause=lambda _seconds: None)
    watchdog.forget()
    for _ in range(STARTING_CHECKS + MAX_SILENT):
        assert not watchdog.api_hangs
        watchdog.check()
    assert watchdog.api_hangs
