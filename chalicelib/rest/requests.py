"""The requests of clients: the JSON bodies, and the query of a list."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import Self

from chalicelib.domain.content import (
    BYTES,
    DEFAULT_METHOD,
    NO_CONTENT,
    Content,
    body_of,
    body_of_base64,
)
from chalicelib.domain.content import MAX_BODY_BYTES as MAX_CONTENT_BYTES
from chalicelib.domain.duration import parse_duration
from chalicelib.domain.errors import Fault, InvalidRequest
from chalicelib.domain.moment import When, read_moment
from chalicelib.domain.retry import DEFAULT_DELAYS_S, attempts_allowed
from chalicelib.domain.selection import DuePosition, Selection
from chalicelib.domain.timer import DeliveryOptions, Status
from chalicelib.rest import cursor as cursors
from chalicelib.rest import strict_json
from chalicelib.rest.delay import delay_s, when_fault
from chalicelib.rest.fields import (
    SECONDS_IN,
    Base64,
    ContentType,
    Duration,
    Headers,
    Hours,
    Id,
    Instant,
    LabelName,
    Labels,
    Method,
    Minutes,
    MomentToCome,
    RetryDelays,
    Seconds,
    StatusName,
    Url,
    Zone,
)
from chalicelib.rest.reading import MAX_BATCH_BYTES
from chalicelib.rest.strict_json import JsonDocument
from chalicelib.rest.together import (
    CONTENT_FIELDS,
    FILTERS,
    content_fault,
    filter_fault,
    order_fault,
    policy_fault,
)
from chalicelib.rest.validation import Body, Examples, Limits, Query
from chalicelib.service.bulk import Chosen
from chalicelib.service.dead_letters import DEFAULT_PER_S, FailedTimers
from chalicelib.service.timers import KeyedRequest, TimerRequest

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
"""Timers in one page of a list: by default, and at most."""

MAX_BATCH = 1_000
"""Timers that one request may set."""

MAX_FAULTS_IN_BATCH = 3
"""Faults named of each timer of a batch: a thousand timers with all faults would fill megabytes."""

MAX_IDS = 1_000
"""Ids that one request about many timers may name."""

MIN_REPLAYS_PER_S = 0.1
MAX_REPLAYS_PER_S = 10_000

_AMOUNTS: dict[str, Any] = {"anyOf": [{"required": [name]} for name in SECONDS_IN]}

_ANY_FILTER: list[Any] = [{"required": [name]} for name in FILTERS]

_LIMIT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


# Settings give these two limits, so they reach a validator in the context (validation.Limits).
def _check_attempts(value: int, info: ValidationInfo) -> int:
    # With delays of its own, a timer has as many attempts as they say (together.py).
    own_delays = info.data.get("retry") is not None
    maximum = info.context.max_attempts if info.context and not own_delays else value
    if value > maximum:
        raise ValueError(f"may be at most {maximum} here (TIMERS_RETRY_DELAYS)")
    return value


def _check_timeout(value: int, info: ValidationInfo) -> int:
    maximum = info.context.timeout_s if info.context else value
    if value > maximum:
        raise ValueError(f"may be at most {maximum:g} seconds here (TIMERS_SEND_TIMEOUT)")
    return value


def _check_body(value: Any) -> Any:
    body_of(value)
    return value


def _check_cursor(text: str) -> str:
    cursors.read(text)
    return text


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


class MoveTimer(Body):
    """When: in exactly one way.

    `hours`, `minutes` and `seconds` add up, carry over, and are written without a fraction; or
    `delay` is a duration; or `at` is a moment. At most ten years of 365 days from now, 315,360,000
    seconds; 0 means now. An unknown field is refused.
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_AMOUNTS, {"required": ["delay"]}, {"required": ["at"]}]}
    )

    examples: ClassVar[Examples] = {
        "later": {"value": {"minutes": 2}},
        "duration": {"value": {"delay": "1h30m"}},
    }

    hours: Hours = 0
    minutes: Minutes = 0
    seconds: Seconds = 0
    # null is no way of saying when: it is refused, as in the amounts (delay.py).
    delay: Duration | SkipJsonSchema[None] = None
    at: MomentToCome | SkipJsonSchema[None] = None
    timezone: Zone | SkipJsonSchema[None] = None

    @property
    def when(self) -> When:
        """When the timer is to be due."""
        if self.at is not None:
            return When(at=read_moment(self.at, self.timezone))
        if self.delay is not None:
            return When(parse_duration(self.delay))
        return When(delay_s(self.hours, self.minutes, self.seconds) * 1000)

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the ways to say when, None if there is none."""
        # As they were given: a default of 0 must not pass for an amount.
        return when_fault(given)


class SetTimer(MoveTimer):
    """A URL to call, and how long from now, in amounts as in `MoveTimer`."""

    examples: ClassVar[Examples] = {
        "plain": {
            "value": {"hours": 4, "minutes": 0, "seconds": 1, "url": "https://example.com/hook"}
        },
        "policy": {
            "value": {
                "minutes": 90,
                "url": "https://example.com/hook?k=v",
                "max_attempts": 3,
                "timeout": 5,
                "on_failure_url": "https://example.com/failed",
            }
        },
        "content": {
            "value": {
                "delay": "1h30m",
                "url": "https://example.com/orders",
                "method": "PUT",
                "headers": {"Authorization": "Bearer secret"},
                "body": {"order": 7},
                "labels": ["order:7"],
            }
        },
        "retries": {
            "value": {
                "delay": "15m",
                "url": "https://example.com/hook",
                "retry": ["30s", "5m", "1h"],
                "max_lateness": "10m",
                "repeatable": True,
            }
        },
    }

    url: Url
    retry: Annotated[
        RetryDelays | None,
        Field(
            description="Delays before the second, third, … attempt, in place of the service's. "
            "Each is lengthened by up to a tenth at random."
        ),
    ] = None
    max_attempts: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Attempts at most. The retry schedule of the service "
                "(`TIMERS_RETRY_DELAYS`) sets the limit. With `retry` it is one more than delays.",
                json_schema_extra={"maximum": attempts_allowed(DEFAULT_DELAYS_S)},
            ),
            AfterValidator(_check_attempts),
        ]
        | None
    ) = None
    timeout: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Seconds that one attempt may take, `TIMERS_SEND_TIMEOUT` at most.",
                json_schema_extra={"maximum": 10},  # the default of TIMERS_SEND_TIMEOUT
            ),
            AfterValidator(_check_timeout),
        ]
        | None
    ) = None
    on_failure_url: Annotated[
        Url | None, Field(description="Called once when the timer fails for good or expires.")
    ] = None
    max_lateness: Annotated[
        Duration | None,
        Field(
            description="A first call that cannot start within this time after it is due is not "
            "made: the timer is `expired`."
        ),
    ] = None
    repeatable: Annotated[
        bool,
        Field(
            description="A receiver that responds 2xx with `timer-again`, seconds or an HTTP date, "
            "is called again then."
        ),
    ] = False
    method: Annotated[Method, Field(description="The method of the webhook.")] = DEFAULT_METHOD
    headers: Headers | None = None
    body: Annotated[
        Any,
        AfterValidator(_check_body),
        Field(
            description="The body of the webhook: a string as it is, any other value as compact "
            f"JSON. At most {MAX_CONTENT_BYTES} bytes as it is sent."
        ),
    ] = None
    body_base64: Base64 | None = None
    content_type: ContentType | None = None
    append_id: Annotated[bool, Field(description="Append `/<id>` to the path of the URL.")] = True
    labels: Labels | None = None

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of several fields together, None if there is none."""
        return super().fault_together(given) or policy_fault(given) or content_fault(given)

    def timer_request(self) -> TimerRequest:
        """Return the timer that the client asks for."""
        return TimerRequest(
            url=self.url,
            when=self.when,
            options=self._options(),
            content=self._content(),
            labels=tuple(self.labels or ()),
        )

    def _options(self) -> DeliveryOptions:
        return DeliveryOptions(
            max_attempts=None if self.retry is not None else self.max_attempts,
            timeout_s=self.timeout,
            on_failure_url=self.on_failure_url,
            retry_delays_ms=(
                None if self.retry is None else tuple(map(parse_duration, self.retry))
            ),
            max_lateness_ms=(
                None if self.max_lateness is None else parse_duration(self.max_lateness)
            ),
            repeatable=self.repeatable,
        )

    def _content(self) -> Content:
        given = self.model_fields_set
        if given.isdisjoint(CONTENT_FIELDS):
            return NO_CONTENT
        body, kind = b"", None
        if "body" in given:
            body, kind = body_of(self.body)
        elif self.body_base64 is not None:
            body, kind = body_of_base64(self.body_base64), BYTES
        return Content(
            method=self.method,
            headers=tuple((self.headers or {}).items()),
            body=body,
            content_type=self.content_type or kind,
            append_id=self.append_id,
        )


class SetKeyedTimer(SetTimer):
    """The timer of a key, as in `SetTimer`.

    If the timer exists, it is moved, and all that it sends is replaced: an option that is absent
    has its default again.
    """

    examples: ClassVar[Examples] = {
        "debounce": {
            "value": {"seconds": 30, "no_later_than": "5m", "url": "https://example.com/hook"}
        },
        "next": {"value": {"hours": 1, "if_in_flight": "new", "url": "https://example.com/hook"}},
    }

    no_later_than: Annotated[
        Duration | None,
        Field(
            description="A bound, counted from the first set of the timer. A later move never goes "
            "past it: a time beyond it becomes the bound. It stays when it is not sent, and later "
            "requests can only tighten it. A duration such as `90m`, `1h30m` or `PT4H1S`."
        ),
    ] = None
    if_in_flight: Annotated[
        Literal["new"] | None,
        Field(
            description="What to do while the webhook of the timer is being called. `new` sets the "
            "next timer, to which the key passes. Otherwise the response is 409 `timer-in-flight`."
        ),
    ] = None

    def keyed_request(self) -> KeyedRequest:
        """Return the timer that the client asks for."""
        bound = self.no_later_than
        return KeyedRequest(
            timer=self.timer_request(),
            no_later_than_ms=None if bound is None else parse_duration(bound),
            new_if_in_flight=self.if_in_flight == "new",
        )


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


class AdvanceClock(Body):
    """How far to move the clock: by `delay`, or `until` no timer is outstanding."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["delay"]}, {"required": ["until"]}]}
    )

    examples: ClassVar[Examples] = {
        "days": {"value": {"delay": "3d"}},
        "idle": {"value": {"until": "idle"}},
    }

    delay: Duration | SkipJsonSchema[None] = None
    until: Literal["idle"] | SkipJsonSchema[None] = None

    @property
    def delay_ms(self) -> int | None:
        """How far the clock is moved (ms); None for as far as the last timer."""
        return None if self.delay is None else parse_duration(self.delay)

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the two fields together, None if there is none."""
        ways = [name for name in ("delay", "until") if given.get(name) is not None]
        if len(ways) == 1:
            return None
        return Fault("delay", 'give either delay, such as "3d", or until, which is "idle"')


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
            due_from=_epoch_ms(self.due_from, 0),
            due_until=_epoch_ms(self.due_until, math.inf),
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
                {"oneOf": [_AMOUNTS, {"required": ["delay"]}, {"required": ["at"]}]},
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

    def failed_timers(self) -> FailedTimers:
        """Return the failed timers that the fields select."""
        return FailedTimers(
            only=replace(
                self.selection(),
                failed_from=_epoch_ms(self.failed_from, 0),
                failed_until=_epoch_ms(self.failed_until, math.inf),
            ),
            ids=self.ids,
            before=None if self.cursor is None else cursors.read(self.cursor),
        )


class ListTimers(Query):
    """The query of ``GET /timers``."""

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
            due_from=math.floor(_epoch_ms(self.due_after, -1)) + 1,
            due_until=_epoch_ms(self.due_before, math.inf),
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


def _epoch_ms(moment: datetime | None, otherwise: float) -> float:
    return otherwise if moment is None else moment.timestamp() * 1000
