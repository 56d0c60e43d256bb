"""The optional fields of a timer, as plain values by name. Stores keep them under these names.

Most timers have none, so stores keep only those that differ from their default. A new field is
added to its dataclass, here, in the request model, as a column in SQLite's migrations, and in the
table of ``dynamodb/rows.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from chalicelib.domain.content import NO_CONTENT, Content
from chalicelib.domain.timer import (
    NO_OPTIONS,
    DeliveryOptions,
    Idempotency,
    NewTimer,
    Timer,
)

Value: TypeAlias = int | str | bytes

_OPTIONS = (
    "max_attempts",
    "timeout_s",
    "on_failure_url",
    "retry_delays_ms",
    "max_lateness_ms",
    "repeatable",
)
_CONTENT = ("method", "headers", "body", "content_type", "append_id")
_IDEMPOTENCY = ("idempotency_key", "request_digest")

NAMES = (*_OPTIONS, *_CONTENT, "labels", "key", "no_later_than", *_IDEMPOTENCY)
"""The names of all optional fields that a timer has from the start."""

SIZED = ("on_failure_url", "headers", "body", "content_type", "labels", "key", "idempotency_key")
"""The fields of no fixed size, which count towards the quota of stored bytes."""

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def optional_fields(timer: NewTimer | Timer) -> dict[str, Value]:
    """Return the optional fields that differ from their default."""
    found: dict[str, Value] = {}
    if timer.options != NO_OPTIONS:
        found |= _options(timer.options)
    if timer.content != NO_CONTENT:
        found |= _content(timer.content)
    if timer.labels:
        found["labels"] = _to_json(timer.labels)
    if timer.key is not None:
        found["key"] = timer.key
    if timer.no_later_than is not None:
        found["no_later_than"] = timer.no_later_than
    if timer.idempotency is not None:
        found["idempotency_key"] = timer.idempotency.key
        found["request_digest"] = timer.idempotency.digest
    return found


def read_optional_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of ``NewTimer`` or ``Timer`` for what ``optional_fields`` gave.

    Other names in ``values`` are ignored, and so are fields whose value is None.
    """
    given = {name: values[name] for name in NAMES if values.get(name) is not None}
    arguments: dict[str, Any] = {}
    if not given:
        return arguments
    options = {name: given[name] for name in _OPTIONS if name in given}
    if options:
        arguments["options"] = _read_options(options)
    content = {name: given[name] for name in _CONTENT if name in given}
    if content:
        arguments["content"] = _read_content(content)
    if "labels" in given:
        arguments["labels"] = tuple(json.loads(given["labels"]))
    arguments |= {name: given[name] for name in ("key", "no_later_than") if name in given}
    if "idempotency_key" in given:
        arguments["idempotency"] = Idempotency(
            key=given["idempotency_key"], digest=bytes(given["request_digest"])
        )
    return arguments


def _options(options: DeliveryOptions) -> dict[str, Value]:
    found: dict[str, Value] = {
        name: value
        for name in ("max_attempts", "timeout_s", "on_failure_url", "max_lateness_ms")
        if (value := getattr(options, name)) is not None
    }
    if options.retry_delays_ms is not None:
        found["retry_delays_ms"] = _to_json(options.retry_delays_ms)
    if options.repeatable:
        found["repeatable"] = 1
    return found


def _read_options(values: dict[str, Any]) -> DeliveryOptions:
    delays = values.get("retry_delays_ms")
    if delays is not None:
        values = values | {"retry_delays_ms": tuple(json.loads(delays))}
    if "repeatable" in values:
        values = values | {"repeatable": bool(values["repeatable"])}
    return DeliveryOptions(**values)


def _content(content: Content) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if content.method != NO_CONTENT.method:
        found["method"] = content.method
    if content.headers:
        found["headers"] = _to_json(content.headers)
    if content.body:
        found["body"] = content.body
    if content.content_type is not None:
        found["content_type"] = content.content_type
    if not content.append_id:
        found["append_id"] = 0
    return found


def _read_content(values: dict[str, Any]) -> Content:
    if "headers" in values:
        pairs = json.loads(values["headers"])
        values = values | {"headers": tuple((name, value) for name, value in pairs)}
    if "body" in values:
        values = values | {"body": bytes(values["body"])}
    if "append_id" in values:
        values = values | {"append_id": bool(values["append_id"])}
    return Content(**values)
