"""A request as a view sees it, and how it is read: path, body and query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic
from urllib.parse import unquote

from chalice.app import Request
from typing_extensions import TypeVar

from chalicelib.domain import errors
from chalicelib.domain.keyed import is_key
from chalicelib.domain.timer import Idempotency
from chalicelib.rest.cursor import is_id

MAX_BODY_BYTES = 131_072
"""Twice the longest body of a webhook, which takes more as JSON."""

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""The same for a batch of timers."""

InputT = TypeVar("InputT", default=None)

_MAX_BYTES = "max_body_bytes"


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


def json_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of a request that must carry JSON of at most ``max_bytes``.

    Raises ``UnsupportedMediaType`` and ``BodyTooLarge``. A missing Content-Type is read as JSON.
    """
    content_type = request.headers.get("content-type") or "application/json"
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise errors.UnsupportedMediaType(
            f"Content-Type is {errors.excerpt(content_type)}; send application/json "
            "(curl: -H 'Content-Type: application/json')."
        )
    body: bytes = request.raw_body  # type: ignore[assignment]
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


def too_large(max_bytes: int = MAX_BODY_BYTES) -> errors.BodyTooLarge:
    """Return the error for a body of more than ``max_bytes``."""
    return errors.BodyTooLarge(f"The body may have at most {max_bytes} bytes.")


# A gateway has only the app, so the limit of a route travels with its view.


def set_max_body_bytes(view: Callable[..., Any], max_bytes: int) -> None:
    """Say how long the body of a request for ``view`` may be."""
    vars(view)[_MAX_BYTES] = max_bytes


def max_body_bytes(view: Callable[..., Any]) -> int:
    """Return how long the body of a request for ``view`` may be."""
    limit: int = vars(view).get(_MAX_BYTES, MAX_BODY_BYTES)
    return limit
