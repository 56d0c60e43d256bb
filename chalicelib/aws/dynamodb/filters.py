"""Filters of a query: what DynamoDB leaves out of a page after it has read it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb.rows import number, text
from chalicelib.domain.selection import Selection
from chalicelib.domain.timer import Status

if TYPE_CHECKING:
    from chalicelib.aws.dynamodb.rows import Row


@dataclass(frozen=True, slots=True)
class Filter:
    """An expression and its values. Without an expression, it leaves nothing out."""

    expression: str | None = None
    values: Row = field(default_factory=dict)

    @classmethod
    def of(cls, status: Status | None, only: Selection) -> Filter:
        """Return the filter for timers of a status that are selected."""
        parts: list[str] = []
        values: Row = {}
        if status is not None:
            parts.append("#status = :status")
            values[":status"] = text(status.value)
        if only.label is not None:
            # The labels are JSON, so one label has quotes around it.
            parts.append("contains(#labels, :label)")
            values[":label"] = text(json.dumps(only.label))
        if only.url_prefix:
            parts.append("begins_with(#url, :url_prefix)")
            values[":url_prefix"] = text(only.url_prefix)
        for name, attribute, comparison in _TIMES:
            value = getattr(only, name)
            if value not in (0, math.inf):
                parts.append(f"#{attribute} {comparison} :{name}")
                # Whole milliseconds: every stored time is one.
                values[f":{name}"] = number(math.ceil(value))
        return cls(" AND ".join(parts), values) if parts else NO_FILTER


NO_FILTER = Filter()

_TIMES = (
    ("due_from", "due_at", ">="),
    ("due_until", "due_at", "<"),
    ("failed_from", "settled_at", ">="),
    ("failed_until", "settled_at", "<"),
)
