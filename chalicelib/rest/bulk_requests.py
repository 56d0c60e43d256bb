"""The JSON bodies of requests about many timers: set a batch, change or replay those that match."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    WithJsonSchema,
)
from typing_extensions import Self

from chalicelib.domain.errors import Fault, InvalidRequest
from chalicelib.domain.selection import Selection
from chalicelib.rest import cursor as cursors
from chalicelib.rest import strict_json
from chalicelib.rest.fields import Id, Instant, LabelName, epoch_ms
from chalicelib.rest.reading import MAX_BATCH_BYTES
from chalicelib.rest.requests import WAYS_TO_SAY_WHEN, MoveTimer, SetTimer
from chalicelib.rest.strict_json import JsonDocument
from chalicelib.rest.together import FILTERS, filter_fault
from chalicelib.rest.validation import Body, Examples, Limits
from chalicelib.service.dead_letters import DEFAULT_PER_S
from chalicelib.service.many_timers import Chosen
from chalicelib.service.timers import TimerRequest

MAX_BATCH = 1_000
"""Timers that one request may set."""

MAX_FAULTS_IN_BATCH = 3
"""Faults named of each timer of a batch: a thousand timers with all faults would fill megabytes."""

MAX_IDS = 1_000
"""Ids that one request about many timers may name."""

MIN_REPLAYS_PER_S = 0.1
MAX_REPLAYS_PER_S = 10_000

_ANY_FILTER: list[Any] = [{"required": [name]} for name in FILTERS]


def _check_cursor(text: str) -> str:
    cursors.read(text)
    return text


class SetTimers(Body):
    """Timers to set, each as in `SetTimer`. Each is accepted or refused on its own."""

    max_bytes = MAX_BATCH_BYTES

    examples: ClassVar[Examples] = {
        "two": {
            "value": {
                "timers": [
                    {"delay": "1h", "url": "https://example.com/hook"},
                    {"delay": "2h", "url": "https://example.com/hook", "labels": ["order:7"]},
                ]
            }
        }
    }

    # Only the document says what they are: each is read by itself, and its faults are its own.
    timers: Annotated[
        list[Any],
        Field(min_length=1, max_length=MAX_BATCH),
        WithJsonSchema(
            {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_BATCH,
                "items": {"description": "A timer as in `POST /timers`."},
            }
        ),
    ]
    _read_timers: list[SetTimer | InvalidRequest] = PrivateAttr(default_factory=list)

    @classmethod
    def parse(cls, body: bytes, limits: Limits | None = None) -> Self:
        """Read a batch. Raises ``MalformedBody``, and ``InvalidRequest`` for the batch itself."""
        document = strict_json.read(body)
        members = document.value if isinstance(document.value, dict) else {}
        own = [name for name in document.repeated if name in members and name == "timers"]
        batch = cls._read(document.value, own, limits)
        return batch.with_each_read(document, limits)

    def with_each_read(self, document: JsonDocument, limits: Limits | None) -> Self:
        """Read each timer by itself; return the batch."""
        for each in self.timers:
            try:
                read = SetTimer.read_part(document, each, limits, MAX_FAULTS_IN_BATCH)
            except InvalidRequest as refusal:
                self._read_timers.append(refusal)
            else:
                self._read_timers.append(read)
        return self

    def timer_requests(self) -> list[TimerRequest | InvalidRequest]:
        """Return the timers that the client asks for, and the refusals of others, in order."""
        return [
            each.timer_request() if isinstance(each, SetTimer) else each
            for each in self._read_timers
        ]


class _Chosen(Body):
    """The timers of a request about many: all that have everything that is given."""

    ids: Annotated[
        list[Id] | None, Field(description="Only timers of these ids.", max_length=MAX_IDS)
    ] = None
    label: Annotated[LabelName | None, Field(description="Only timers with this label.")] = None
    url_prefix: Annotated[str, Field(description="Only timers whose URL begins with this.")] = ""
    due_from: Annotated[Instant | None, Field(description="Only timers due then or later.")] = None
    due_until: Annotated[Instant | None, Field(description="Only timers due before.")] = None
    dry_run: Annotated[bool, Field(description="Only count the timers.")] = True
    cursor: Annotated[
        Annotated[
            str,
            StringConstraints(max_length=64),
            AfterValidator(_check_cursor),
            Field(json_schema_extra={"format": "cursor"}),
        ]
        | None,
        Field(description="The `next` of a response that ran out of time."),
    ] = None

    def selection(self) -> Selection:
        """Return what the timers have in common."""
        return Selection(
            label=self.label,
            url_prefix=self.url_prefix,
            due_from=epoch_ms(self.due_from, 0),
            due_until=epoch_ms(self.due_until, math.inf),
        )

    def chosen(self) -> Chosen:
        """Return the timers that the fields choose."""
        return Chosen(
            only=self.selection(),
            ids=self.ids,
            before=None if self.cursor is None else cursors.read(self.cursor),
        )


class ChangeTimers(_Chosen):
    """The pending timers to change. At least one field says which."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _ANY_FILTER})

    examples: ClassVar[Examples] = {
        "count": {"value": {"label": "order:7"}},
        "change": {"value": {"label": "order:7", "dry_run": False}},
    }

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of a request that says nothing about which timers are meant."""
        return super().fault_together(given) or filter_fault(given)


class MoveTimers(MoveTimer, _Chosen):
    """The pending timers to move, and when they are to be due."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {"anyOf": _ANY_FILTER},
                WAYS_TO_SAY_WHEN,
            ]
        }
    )

    examples: ClassVar[Examples] = {
        "count": {"value": {"label": "order:7", "delay": "1h"}},
        "move": {"value": {"label": "order:7", "delay": "1h", "dry_run": False}},
    }

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the time, or of a request that does not say which timers."""
        return super().fault_together(given) or filter_fault(given)


class ReplayTimers(_Chosen):
    """The failed and expired timers to replay: all of them if no field is given."""

    examples: ClassVar[Examples] = {
        "count": {"value": {}},
        "replay": {
            "value": {
                "url_prefix": "https://example.com/",
                "failed_from": "2026-11-24T00:00:00Z",
                "failed_until": "2026-11-25T00:00:00+01:00",
                "dry_run": False,
            }
        },
    }

    failed_from: Annotated[
        Instant | None, Field(description="Only timers that failed then or later.")
    ] = None
    failed_until: Annotated[
        Instant | None, Field(description="Only timers that failed before.")
    ] = None
    per_second: Annotated[
        float,
        Field(
            ge=MIN_REPLAYS_PER_S,
            le=MAX_REPLAYS_PER_S,
            description="How many timers are called each second, so that a receiver that has just "
            "recovered is not overloaded.",
        ),
    ] = DEFAULT_PER_S

    @property
    def per_s(self) -> float | None:
        """How many timers are called each second; None if they are only counted."""
        return None if self.dry_run else self.per_second

    def selection(self) -> Selection:
        """Return what the timers have in common."""
        return replace(
            super().selection(),
            failed_from=epoch_ms(self.failed_from, 0),
            failed_until=epoch_ms(self.failed_until, math.inf),
        )
