"""The query of ``GET /timers``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from chalicelib.domain.errors import Fault
from chalicelib.domain.selection import DuePosition, Selection
from chalicelib.domain.timer import Status
from chalicelib.rest import cursor as cursors
from chalicelib.rest.fields import Instant, LabelName, StatusName, epoch_ms
from chalicelib.rest.together import order_fault
from chalicelib.rest.validation import Query

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
"""Timers in one page of a list: by default, and at most."""

_LIMIT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


def _read_limit(text: str) -> int:
    if not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _read_order(text: str) -> str:
    if text != "due":
        raise ValueError("must be due; without order the list is by id, highest first")
    return text


def _read_status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError as error:
        names = ", ".join(status.value for status in Status)
        raise ValueError(f"must be one of {names}") from error


class ListTimers(Query):
    """Which timers a page of the list has, and in which order."""

    limit: Annotated[
        int,
        BeforeValidator(_read_limit),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
        Field(
            description="Timers at most. A page may be short, even empty, while there is a next "
            "one."
        ),
    ] = DEFAULT_LIMIT
    status: Annotated[
        Status | None,
        BeforeValidator(_read_status, json_schema_input_type=StatusName),
        Field(description="Only timers of this status."),
    ] = None
    order: Annotated[
        Literal["due"] | None,
        BeforeValidator(_read_order),
        WithJsonSchema({"type": "string", "enum": ["due"]}),
        Field(description="`due`: only outstanding timers, the next to be called first."),
    ] = None
    label: Annotated[LabelName | None, Field(description="Only timers with this label.")] = None
    due_after: Annotated[Instant | None, Field(description="Only timers due after that.")] = None
    due_before: Annotated[Instant | None, Field(description="Only timers due before that.")] = None
    cursor: Annotated[
        int | DuePosition | None,
        BeforeValidator(cursors.read_any),
        WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]+={0,2}$", "format": "cursor"}),
        Field(
            description="Where the page begins: from the `Link` of the page before it.",
            examples=["MTAx"],
        ),
    ] = None

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the order with the status and the cursor."""
        return order_fault(given)

    @property
    def by_due(self) -> bool:
        """Whether the list is in the order of the next calls."""
        return self.order == "due"

    @property
    def before(self) -> int | None:
        """The id below which the page begins, in the order of ids."""
        return self.cursor if isinstance(self.cursor, int) else None

    @property
    def after(self) -> DuePosition | None:
        """The position behind which the page begins, in the order of the next calls."""
        return self.cursor if isinstance(self.cursor, DuePosition) else None

    def selection(self) -> Selection:
        """Return what the timers have in common."""
        return Selection(
            label=self.label,
            # A whole millisecond later: ``due_from`` is included.
            due_from=math.floor(epoch_ms(self.due_after, -1)) + 1,
            due_until=epoch_ms(self.due_before, math.inf),
        )

    def next_query(self, cursor: str) -> dict[str, object]:
        """Return the query of the next page."""
        given: dict[str, object] = {"limit": self.limit, "cursor": cursor}
        if self.status is not None:
            given["status"] = self.status.value
        for name in ("order", "label"):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        for name in ("due_after", "due_before"):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name).isoformat()
        return given
