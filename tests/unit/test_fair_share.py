"""Shares: how much of a common resource one user may take."""

from __future__ import annotations

import pytest

from chalicelib.domain.fair_share import MIN_SHARED, fair_share


def test_a_user_that_is_alone_takes_its_share() -> None:
    assert fair_share(1_000, 0, 0.5) == 500


def test_a_newcomer_takes_its_share_of_what_is_left() -> None:
    assert fair_share(1_000, 500, 0.5) == 250


def test_many_users_never_take_everything_from_the_next_one() -> None:
    taken = 0
    for _ in range(9):
        taken += fair_share(1_000, taken, 0.5)

    assert fair_share(1_000, taken, 0.5) == 1


def test_a_share_of_one_is_no_limit() -> None:
    assert fair_share(1_000, 300, 1.0) == 700


@pytest.mark.parametrize("taken", [1_000, 1_200])
def test_nothing_is_left_of_a_resource_that_is_used_up(taken: int) -> None:
    assert fair_share(1_000, taken, 0.5) == 0


def test_a_small_capacity_is_not_shared() -> None:
    assert fair_share(MIN_SHARED - 1, 0, 0.5) == MIN_SHARED - 1
    assert fair_share(MIN_SHARED, 0, 0.5) == MIN_SHARED // 2
