"""One call of a webhook: the prepared request, and the outcome. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One prepared webhook request. ``url`` is ASCII and is sent byte for byte.

    ``timeout_s`` may shorten the sender's own deadline, never lengthen it.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    timeout_s: float | None = None

    def deadline_s(self, longest: float) -> float:
        """Return the seconds this call may take, where no call may take more than ``longest``."""
        return longest if self.timeout_s is None else min(self.timeout_s, longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one call: an HTTP status, or an error that says why there was none.

    ``retry_after`` is the number of seconds the receiver asks us to wait, if it does.
    """

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
