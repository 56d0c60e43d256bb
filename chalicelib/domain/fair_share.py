"""Shares: the part of a common resource that one of its users may take."""

from __future__ import annotations

import math

MIN_SHARED = 8
"""A smaller capacity is not shared: first come, first served."""


def fair_share(capacity: int, taken_by_others: int, share: float) -> int:
    """Return how much of ``capacity`` one user may take: ``share`` of what the others leave.

    With a share of a half, a user that is alone takes half, the next one a quarter, and so on: a
    newcomer nearly always finds room. As users give back what they took, ``n`` of them tend to
    ``1/(n + 1)`` each. A share of 1 is no limit. At least 1 while anything is left.
    """
    left = max(capacity - taken_by_others, 0)
    return left if capacity < MIN_SHARED else math.ceil(share * left)
