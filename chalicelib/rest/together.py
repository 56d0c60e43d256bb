"""Faults of several fields of a timer together. Each field by itself is checked by its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.domain.errors import Fault

CONTENT_FIELDS = ("method", "headers", "body", "body_base64", "content_type", "append_id")


def policy_fault(given: Mapping[str, Any]) -> Fault | None:
    """Return the fault of ``retry`` and ``max_attempts``, which must mean the same."""
    retry, attempts = given.get("retry"), given.get("max_attempts")
    if not isinstance(retry, list) or type(attempts) is not int or attempts == len(retry) + 1:
        return None
    return Fault(
        "max_attempts", f"contradicts retry, whose {len(retry)} delays mean {len(retry) + 1}"
    )


def content_fault(given: Mapping[str, Any]) -> Fault | None:
    """Return the fault of the body with its type and the method."""
    base64 = given.get("body_base64") is not None
    if "body" in given and base64:
        return Fault("body_base64", "is instead of body: send one of them")
    has_body = "body" in given or base64
    if given.get("content_type") is not None and not has_body:
        return Fault("content_type", "belongs to a body, which is missing")
    if given.get("method") == "GET" and has_body:
        # RFC 9110, 9.3.1: it has no meaning, and receivers may reject the request for it.
        return Fault("method", "GET has no body")
    return None
