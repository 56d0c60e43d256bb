"""The content of a webhook, as far as the client chose it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a webhook sends. The default is an empty POST to the URL with ``/<id>`` appended.

    ``headers`` are names and values in the client's order. ``content_type`` is the Content-Type of
    ``body``, None where no header is sent. ``append_id`` tells whether the id is appended.
    """

    method: str = "POST"
    # Not shown: headers and bodies may have secrets of the client.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    append_id: bool = True


NO_CONTENT = Content()
"""The content of most webhooks: none."""
