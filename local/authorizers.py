"""Runs the authorizers of routes as API Gateway does: before the app, and with a cache."""

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

MAX_POLICIES_KEPT = 1_024
MAX_TOKEN_CHARACTERS = 128
"""No key is as long. A longer token is refused without the authorizer, so it fills no cache."""

# There is no such API. The policies only need an ARN of the usual form to match.
_API = "arn:aws:execute-api:local:000000000000:timers/local"

Context = dict[str, Any]
_CacheKey = tuple[str, str]
"""The name of an authorizer, and a token."""


@dataclass(frozen=True, slots=True)
class _Policy:
    """The response of an authorizer to one token: the allowed ARNs and the caller's context."""

    allowed: tuple[str, ...]
    context: Context
    expires_at: float


class Authorizers:
    """Runs the authorizer of a route, and caches the policy that it returns. Thread-safe.

    A policy is kept for the ``ttl_seconds`` of its authorizer, by ``clock`` (s). A denial is not
    kept: anybody can cause denials, and they would push the policies of callers out of the cache.
    """

    def __init__(self, app: Chalice, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_route: dict[tuple[str, str], Any] = {
            (path, method): entry.authorizer
            for path, entries in app.routes.items()
            for method, entry in entries.items()
            if entry.authorizer is not None
        }
        self._clock = clock
        self._kept: OrderedDict[_CacheKey, _Policy] = OrderedDict()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Tell whether any route has an authorizer."""
        return bool(self._by_route)

    def context(self, route: str, method: str, token: str | None) -> Context | None:
        """Return the context that the authorizer of a route returns for ``token``.

        It is None if the route has no authorizer. Raises ``Unauthorized``, and the errors of the
        authorizer.
        """
        authorizer = self._by_route.get((route, method))
        if authorizer is None:
            return None
        if not token or len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthorized
        arn = f"{_API}/{method}{route}"
        policy = self._cached((authorizer.name, token)) or self._authorize(authorizer, token, arn)
        # API Gateway caches by token, so a policy may be that of another route: its ARNs decide.
        if not _matches(arn, policy.allowed):
            raise Unauthorized
        return policy.context

    def is_known(self, route: str, method: str, token: str | None) -> bool:
        """Tell whether ``context`` can tell without calling an authorizer."""
        authorizer = self._by_route.get((route, method))
        if authorizer is None or not token or len(token) > MAX_TOKEN_CHARACTERS:
            return True
        return self._cached((authorizer.name, token)) is not None

    def _cached(self, key: _CacheKey) -> _Policy | None:
        with self._lock:
            policy = self._kept.get(key)
            if policy is None or self._clock() >= policy.expires_at:
                return None
            self._kept.move_to_end(key)
            return policy

    def _authorize(self, authorizer: ChaliceAuthorizer, token: str, arn: str) -> _Policy:
        # Read before the call: a key that is revoked during the call is not cached for longer.
        called_at = self._clock()
        event = {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}
        returned = authorizer(event, {})
        policy = _Policy(
            allowed=_allowed(returned),
            context={**returned.get("context", {}), "principalId": returned["principalId"]},
            expires_at=called_at + (authorizer.config.ttl_seconds or 0),
        )
        if policy.allowed:
            self._keep((authorizer.name, token), policy)
        return policy

    def _keep(self, key: _CacheKey, policy: _Policy) -> None:
        with self._lock:
            self._kept[key] = policy
            self._kept.move_to_end(key)
            # The least recently used one goes first.
            if len(self._kept) > MAX_POLICIES_KEPT:
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
