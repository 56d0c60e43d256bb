"""One call of a webhook: the prepared request, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One prepared webhook request. ``url`` is ASCII and is sent byte for byte.

    ``tenant`` owns the timer: a sender shares what it has among tenants. It is not sent.
    ``timeout_s`` (seconds) may shorten the sender's own deadline, never lengthen it.
    """

    url: str
    # Not shown: ``Authorization`` may have a password of the client.
    headers: dict[str, str] = field(repr=False)
    timeout_s: float | None = None
    tenant: str = ""

    def deadline_s(self, max_s: float) -> float:
        """Return the seconds this call may take. ``max_s`` is the sender's own deadline."""
        return max_s if self.timeout_s is None else min(self.timeout_s, max_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one call: an HTTP status, or an error that says why there is none.

    ``retry_after`` is the number of seconds that the receiver asks us to wait, if it asks.
    """

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
