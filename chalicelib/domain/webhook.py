"""One call of a webhook: the prepared request, and its outcome. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One prepared webhook: what to send, where. ``url`` is ASCII and sent byte for byte.

    ``timeout_s`` shortens the sender's own deadline, and never lengthens it.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    timeout_s: float | None = None

    def deadline_s(self, longest: float) -> float:
        """Return how many seconds this call may take, of the ``longest`` that any may."""
        return longest if self.timeout_s is None else min(self.timeout_s, longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one call: an HTTP status, or why there was none.

    ``retry_after`` is the receiver's wish in seconds, where it had one.
    """

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
