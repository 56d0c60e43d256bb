"""The journal of the calls that are made while the test clock is moved."""

from __future__ import annotations

from chalicelib.domain.claim import Claimed, Settlement
from chalicelib.domain.timer import Status


class Journal:
    """Calls in the order in which they began, each with its settlement once it has one."""

    def __init__(self) -> None:
        # By the token of the claim, which is of one call.
        self._settlements: dict[str, Settlement | None] = {}

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return len(self._settlements)

    def begun(self, claimed: Claimed) -> None:
        """Note that the call of a claimed timer begins."""
        self._settlements[claimed.lease.token] = None

    def settled(self, settlement: Settlement) -> None:
        """Note the result of a call."""
        self._settlements[settlement.token] = settlement

    def results(self, tenant: str) -> list[tuple[int, Status]]:
        """Return the timers of ``tenant`` that fired or ended, in the order of their calls."""
        return [
            (settlement.id, result)
            for settlement in self._settlements.values()
            if settlement and settlement.tenant == tenant and (result := _result(settlement))
        ]


def _result(settlement: Settlement) -> Status | None:
    """Return what became of the timer, None if its call is tried again."""
    if settlement.status is not Status.PENDING:
        return settlement.status
    # A timer whose receiver asks to be called again has fired all the same.
    return Status.FIRED if settlement.repeat else None
