"""One call of a webhook: the prepared request, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One prepared webhook request. ``url`` is ASCII and is sent byte for byte, and so is ``body``.

    ``tenant`` owns the timer: a sender shares what it has among tenants. It is not sent.
    ``timeout_s`` (seconds) may shorten the sender's own deadline, never lengthen it.
    """

    url: str
    # Not shown: ``Authorization`` may have a password of the client.
    headers: dict[str, str] = field(repr=False)
    method: str = "POST"
    body: bytes = field(default=b"", repr=False)
    timeout_s: float | None = None
    tenant: str = ""

    @property
    def says_length(self) -> bool:
        """Whether the request has a Content-Length: its method takes a body (RFC 9110, 8.6)."""
        return bool(self.body) or self.method not in ("GET", "DELETE")

    def deadline_s(self, max_s: float) -> float:
        """Return the seconds this call may take. ``max_s`` is the sender's own deadline."""
        return max_s if self.timeout_s is None else min(self.timeout_s, max_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one call: an HTTP status, or an error that says why there is none.

    ``retry_after`` is the number of seconds that the receiver asks us to wait, if it asks.
    ``again`` is the value of its ``timer-again`` header. ``response`` is the beginning of the body
    of a failure, as text. All come from the receiver and may be hostile.
    """

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
    again: str | None = None
    response: str | None = field(default=None, repr=False)
