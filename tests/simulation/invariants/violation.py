"""The error that ends a run: an invariant does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class InvariantViolation(BaseException):
    """An invariant was violated. No handler of the code under test catches it."""

    def __init__(self, invariant: Callable[..., Any], *about: object) -> None:
        super().__init__(" ".join(map(str, (f"{invariant.__name__}:", *about))))
        self.invariant = invariant.__name__
