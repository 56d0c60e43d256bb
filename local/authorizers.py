"""The authorizers of the app's routes, run as API Gateway runs them: before the app, and not for
every request.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chalice.app import Chalice, ChaliceAuthorizer
from chalice.local import ARNMatcher

from chalicelib.domain.errors import Unauthorized

KEPT_ANSWERS = 1_024
MAX_TOKEN_CHARACTERS = 128
"""Longer than any key; what is longer is refused unasked, so that it is never kept either."""

_API = "arn:aws:execute-api:local:000000000000:timers/local"

Context = dict[str, Any]
_Asked = tuple[str, str]
"""The name of an authorizer, and the token it was asked about."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an authorizer said of one token: what it may call until when, and who it is."""

    allowed: tuple[str, ...]
    context: Context
    until: float


class Authorizers:
    """Tells who sent a request, to routes that ask for it. Thread-safe.

    An answer is kept for the authorizer's own ``ttl_seconds``, by ``clock`` (seconds), unless it
    lets nobody in: that costs one look-up, and what anyone may send must not push out the callers.
    """

    def __init__(self, app: Chalice, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_route: dict[tuple[str, str], Any] = {
            (path, method): entry.authorizer
            for path, entries in app.routes.items()
            for method, entry in entries.items()
            if entry.authorizer is not None
        }
        self._clock = clock
        self._kept: OrderedDict[_Asked, _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Tell whether any route asks who calls."""
        return bool(self._of_route)

    def context(self, route: str, method: str, token: str | None) -> Context | None:
        """Return what the authorizer of a route says of ``token``, None if the route has none.

        Raises ``Unauthorized``, and what the authorizer raises.
        """
        authorizer = self._of_route.get((route, method))
        if authorizer is None:
            return None
        if not token or len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthorized
        arn = f"{_API}/{method}{route}"
        answer = self._recall((authorizer.name, token)) or self._ask(authorizer, token, arn)
        if not _matches(arn, answer.allowed):
            raise Unauthorized
        return answer.context

    def _recall(self, asked: _Asked) -> _Answer | None:
        with self._lock:
            answer = self._kept.get(asked)
            if answer is None or self._clock() >= answer.until:
                return None
            self._kept.move_to_end(asked)
            return answer

    def _ask(self, authorizer: ChaliceAuthorizer, token: str, arn: str) -> _Answer:
        asked_at = self._clock()
        event = {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}
        policy = authorizer(event, {})
        answer = _Answer(
            allowed=_allowed(policy),
            context={**policy.get("context", {}), "principalId": policy["principalId"]},
            until=asked_at + (authorizer.config.ttl_seconds or 0),
        )
        if answer.allowed:
            self._keep((authorizer.name, token), answer)
        return answer

    def _keep(self, asked: _Asked, answer: _Answer) -> None:
        with self._lock:
            self._kept[asked] = answer
            self._kept.move_to_end(asked)
            if len(self._kept) > KEPT_ANSWERS:
                self._kept.popitem(last=False)


def _allowed(policy: dict[str, Any]) -> tuple[str, ...]:
    """Return the patterns of the ARNs that a policy allows."""
    return tuple(
        resource
        for statement in policy["policyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        for resource in statement["Resource"]
    )


@functools.lru_cache(maxsize=256)
def _matches(arn: str, patterns: tuple[str, ...]) -> bool:
    return bool(ARNMatcher(arn).does_any_resource_match(list(patterns)))
