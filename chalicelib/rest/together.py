"""Faults of several fields of a timer together. Each field by itself is checked by its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.domain.errors import Fault
from chalicelib.domain.selection import DuePosition
from chalicelib.rest import cursor as cursors

CONTENT_FIELDS = ("method", "headers", "body", "body_base64", "content_type", "append_id")

OPTION_FIELDS = (
    "retry",
    "max_attempts",
    "timeout",
    "on_failure_url",
    "max_lateness",
    "repeatable",
)


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


FILTERS = ("ids", "label", "url_prefix", "due_from", "due_until")
"""The fields that say which timers a request about many means."""


def filter_fault(given: Mapping[str, Any]) -> Fault | None:
    """Return the fault of a request about many timers that does not say which."""
    if any(given.get(name) not in (None, "") for name in FILTERS):
        return None
    return Fault("body", f"say which timers: at least one of {', '.join(FILTERS)} is required")


def order_fault(given: Mapping[str, Any]) -> Fault | None:
    """Return the fault of the order of a list with its status and its cursor."""
    by_due = given.get("order") == "due"
    if by_due and given.get("status") not in (None, "pending"):
        return Fault("status", "order=due lists outstanding timers, whose status is pending")
    cursor = given.get("cursor")
    if isinstance(cursor, str) and _is_of_due_list(cursor) not in (None, by_due):
        return Fault("cursor", "is of a list in another order")
    return None


def _is_of_due_list(cursor: str) -> bool | None:
    """Tell which list a cursor is of, None if it is none."""
    try:
        return isinstance(cursors.read_any(cursor), DuePosition)
    except ValueError:
        return None
