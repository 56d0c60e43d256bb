"""A request as a view sees it, and how it is read: path, body and query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic
from urllib.parse import unquote

from chalice.app import Request
from typing_extensions import TypeVar

from chalicelib.domain import errors
from chalicelib.domain.keyed import is_key
from chalicelib.domain.timer import Idempotency
from chalicelib.rest.cursor import is_id

MAX_BODY_BYTES = 131_072
"""Twice the longest body of a webhook, which takes more as JSON."""

InputT = TypeVar("InputT", default=None)


@dataclass(slots=True)
class ApiRequest(Generic[InputT]):
    """A request that was accepted and read.

    ``path`` is the path that the caller requested, with the stage on AWS. ``input`` is the body or
    the query, read by the model that the route names. ``idempotency`` is there if the route accepts
    an ``Idempotency-Key`` and the caller sent one.
    """

    caller: str | None
    path: str
    parameters: Mapping[str, str]
    input: InputT
    idempotency: Idempotency | None = None

    @property
    def tenant(self) -> str:
        """The tenant whose timers the request is about.

        Raises ``Unauthorized`` on a public route, where the tenant is not known.
        """
        if self.caller is None:
            raise errors.Unauthorized
        return self.caller

    @property
    def timer_id(self) -> int:
        """The id in the path. Raises ``TimerNotFound`` if it cannot be an id."""
        return timer_id(self.parameters["timer_id"])

    @property
    def timer_key(self) -> str:
        """The key in the path. Raises ``InvalidRequest`` if it cannot be a key."""
        return timer_key(self.parameters["key"])


def timer_key(text: str) -> str:
    """Read the key of a timer from a path. Raises ``InvalidRequest`` if it cannot be a key."""
    # Gateways differ in whether they decode a path. No key has a %, so twice does no harm.
    key = unquote(text)
    if not is_key(key):
        raise errors.InvalidRequest(
            [errors.Fault("key", "must be 1 to 200 letters, digits and . _ ~ : @ -")]
        )
    return key


def timer_id(text: str) -> int:
    """Read an id from a path. Raises ``TimerNotFound`` if ``text`` cannot be an id."""
    # Not a 422: for a client there is no timer under this path, whether or not it looks like one.
    if not is_id(text):
        raise errors.TimerNotFound(f"There is no timer {text[:30]!r}.")
    return int(text)


def path_of(request: Request) -> str:
    """Return the path as the caller sees it, with the stage on AWS."""
    path: str = request.context.get("path", request.path)
    return path


def query_of(request: Request) -> dict[str, list[str]]:
    """Return the parameters of the query, each with all its values."""
    given = request.query_params
    return {name: given.getlist(name) for name in given} if given else {}


def json_body(request: Request) -> bytes:
    """Return the body of a request that must carry JSON.

    Raises ``UnsupportedMediaType`` and ``BodyTooLarge``. A missing Content-Type is read as JSON.
    """
    content_type = request.headers.get("content-type") or "application/json"
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise errors.UnsupportedMediaType(
            f"Content-Type is {errors.excerpt(content_type)}; send application/json "
            "(curl: -H 'Content-Type: application/json')."
        )
    body: bytes = request.raw_body  # type: ignore[assignment]
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    return body


def too_large() -> errors.BodyTooLarge:
    """Return the error for a body of more than ``MAX_BODY_BYTES``."""
    return errors.BodyTooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")
