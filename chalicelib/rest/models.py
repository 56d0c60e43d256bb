"""The bodies of responses: their types, and functions that make them from the domain's values.

The types are plain dictionaries, so they cost nothing at run time. mypy checks the functions
against them, and pydantic reads them to write the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict  # pydantic needs this one before Python 3.12

from chalicelib.domain.attempt_log import AttemptRecord, last_attempt
from chalicelib.domain.duration import format_duration
from chalicelib.domain.errors import MAX_FAULTS
from chalicelib.domain.moment import rfc3339
from chalicelib.domain.next_attempt import NextAttempt
from chalicelib.domain.timer import Status, Timer
from chalicelib.rest import cursor
from chalicelib.rest.fields import (
    Duration,
    Id,
    Labels,
    Method,
    Moment,
    StatusName,
    TimeLeft,
    Url,
)
from chalicelib.service.many_timers import Done
from chalicelib.service.movable_clock import Advanced

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Cursor = Annotated[str, Field(json_schema_extra={"format": "cursor"})]


class Index(TypedDict):
    """Every route as `METHOD /path`."""

    routes: list[Annotated[str, Field(pattern="^[A-Z]+ /")]]


class Health(TypedDict):
    """The service reaches its store."""

    status: Literal["ok"]


class Nothing(TypedDict):
    """An object without fields."""


class TimerId(TypedDict):
    """The id of a timer."""

    id: Id


class TimerStatus(TypedDict):
    """The time that a timer has left."""

    id: Id
    time_left: TimeLeft


class TimerItem(TypedDict):
    """A timer in a list."""

    id: Id
    url: Url
    status: StatusName
    due_at: Moment
    time_left: TimeLeft
    created_at: Moment
    attempts: Annotated[
        Count,
        Field(description="Attempts since the timer was set, moved or replayed."),
    ]
    next_attempt_at: Annotated[Moment | None, Field(description="Null once it fired or failed.")]
    last_error: Annotated[
        str | None, Field(description="Why the latest attempt failed; null if it did not.")
    ]
    max_attempts: Positive | None
    timeout: Positive | None
    on_failure_url: Url | None


class NextCall(TypedDict):
    """When a timer is called next, and why then."""

    at: Moment
    because: str


class BodySummary(TypedDict):
    """The size and the type of a webhook's body."""

    bytes: Count
    content_type: str | None


class TimerDetails(TimerItem):
    """Everything that is stored of a timer: bodies by size and type, headers by name."""

    method: Method
    headers: list[str]
    body: BodySummary | None
    append_id: bool
    labels: Labels
    retry: list[Duration] | None
    max_lateness: Duration | None
    repeatable: bool
    repeats: Count
    key: str | None
    no_later_than: Moment | None
    idempotency_key: str | None
    settled_at: Moment | None
    next: NextCall | None


class AttemptItem(TypedDict):
    """One attempt to call the webhook, or the one call of `on_failure_url`."""

    call: Annotated[
        Literal["webhook", "on_failure"],
        Field(description="The webhook itself, or the call of `on_failure_url`."),
    ]
    at: Moment
    lateness_ms: Annotated[Count, Field(description="How long after its due time it began.")]
    duration_ms: Count
    status: Annotated[
        int | None, Field(description="The HTTP status of the receiver; null without a response.")
    ]
    error: Annotated[
        str | None, Field(description="Why the call failed, for people; null if it did not.")
    ]
    response: NotRequired[
        Annotated[
            str,
            Field(description="The beginning of the body of the latest failed response."),
        ]
    ]


class ReplayResult(TypedDict):
    """How many failed timers matched and were replayed.

    `next` is null when all were looked at. Otherwise time ran out: send it as `cursor` to go on.
    """

    matching: Count
    replayed: Count
    next: Cursor | None


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: Annotated[
        str,
        Field(
            pattern="^urn:webhook-timers:[a-z-]+$",
            description="`urn:webhook-timers:` and a code that is stable.",
        ),
    ]
    title: str
    status: int
    detail: str


class FieldFault(TypedDict):
    """A fault of one field."""

    field: Annotated[str, Field(description="The name of the field; `body` for the whole body.")]
    message: str


class InvalidRequestProblem(Problem):
    """An error that names every fault of a request, up to the limit."""

    errors: Annotated[list[FieldFault], Field(min_length=1, max_length=MAX_FAULTS)]


class SetResult(TypedDict):
    """One timer of a batch: its `id` if it is set, otherwise the `error`."""

    id: NotRequired[Id]
    error: NotRequired[Problem | InvalidRequestProblem]


class BatchResult(TypedDict):
    """The results of a batch, in the order of its timers."""

    results: list[SetResult]


class Cancelled(TypedDict):
    """How many pending timers matched and were cancelled; `next` as in `Replayed`."""

    matching: Count
    cancelled: Count
    next: Cursor | None


class Fired(TypedDict):
    """How many pending timers matched and were fired; `next` as in `Replayed`."""

    matching: Count
    fired: Count
    next: Cursor | None


class Moved(TypedDict):
    """How many pending timers matched and were moved; `next` as in `Replayed`."""

    matching: Count
    moved: Count
    next: Cursor | None


class ClockAdvanced(TypedDict):
    """The time of the test clock, and the timers that fired or ended on the way.

    They are in the order in which they were called.
    """

    now: Moment
    fired: Annotated[
        list[Id], Field(description="A repeatable timer is here once for each time it fired.")
    ]
    failed: Annotated[list[Id], Field(description="Timers that failed for good.")]
    expired: Annotated[list[Id], Field(description="Timers that were too late for a call.")]


def timer_status(timer: Timer, now: float) -> TimerStatus:
    """Return the time that ``timer`` has left at ``now`` (epoch ms)."""
    return {"id": timer.id, "time_left": timer.time_left(now)}


def timer_item(timer: Timer, now: float) -> TimerItem:
    """Return ``timer`` as a list shows it at ``now`` (epoch ms)."""
    last = last_attempt(timer.log)
    return {
        "id": timer.id,
        "url": timer.url,
        "status": timer.status.value,
        "due_at": rfc3339(timer.due_at),
        "time_left": timer.time_left(now),
        "created_at": rfc3339(timer.created_at),
        "attempts": timer.attempts,
        "next_attempt_at": rfc3339(timer.next_attempt_at),
        "last_error": last.reason if last else None,
        "max_attempts": timer.options.max_attempts,
        "timeout": timer.options.timeout_s,
        "on_failure_url": timer.options.on_failure_url,
    }


def timer_details(timer: Timer, coming: NextAttempt | None, now: float) -> TimerDetails:
    """Return everything that is stored of ``timer``, with its next attempt, at ``now`` (ms)."""
    options, content = timer.options, timer.content
    has_body = bool(content.body) or content.content_type is not None
    delays = options.retry_delays_ms
    lateness = options.max_lateness_ms
    return {
        **timer_item(timer, now),
        "method": content.method,
        "headers": [name for name, _ in content.headers],
        "body": (
            {"bytes": len(content.body), "content_type": content.content_type} if has_body else None
        ),
        "append_id": content.append_id,
        "labels": list(timer.labels),
        "retry": None if delays is None else [format_duration(delay) for delay in delays],
        "max_lateness": None if lateness is None else format_duration(lateness),
        "repeatable": options.repeatable,
        "repeats": timer.repeats,
        "key": timer.key,
        "no_later_than": rfc3339(timer.no_later_than),
        "idempotency_key": timer.idempotency.key if timer.idempotency else None,
        "settled_at": rfc3339(timer.settled_at),
        "next": None if coming is None else {"at": rfc3339(coming.at), "because": coming.because},
    }


def attempt_item(attempt: AttemptRecord) -> AttemptItem:
    """Return an attempt as the list of a timer's attempts shows it."""
    item: AttemptItem = {
        "call": "on_failure" if attempt.notice else "webhook",
        "at": rfc3339(attempt.at),
        "lateness_ms": attempt.late_ms,
        "duration_ms": attempt.took_ms,
        "status": attempt.status,
        "error": attempt.reason,
    }
    if attempt.response is not None:
        item["response"] = attempt.response
    return item


def next_of(done: Done) -> str | None:
    """Return the cursor with which a request about many timers goes on."""
    return None if done.before is None else cursor.write(done.before)


def clock_advanced(advanced: Advanced) -> ClockAdvanced:
    """Return how the test clock was moved."""
    return {
        "now": rfc3339(advanced.now),
        "fired": advanced.ids(Status.FIRED),
        "failed": advanced.ids(Status.FAILED),
        "expired": advanced.ids(Status.EXPIRED),
    }


def replay_result(done: Done) -> ReplayResult:
    """Return how many timers matched and were replayed."""
    return {"matching": done.matching, "replayed": done.changed, "next": next_of(done)}
