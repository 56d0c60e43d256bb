"""The responses to requests that succeed: each has a status, a body, headers and an example.

The views return them, and the OpenAPI document is written from the same constants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from chalice.app import Response

from chalicelib.domain.attempt_log import MAX_ATTEMPTS_KEPT
from chalicelib.domain.errors import TimersError
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.keyed import KeyedTimer
from chalicelib.domain.timer import Timer
from chalicelib.rest import cursor
from chalicelib.rest.headers import IDEMPOTENT_REPLAYED, LINK, LOCATION, Header, Headers
from chalicelib.rest.list_query import MAX_LIMIT, ListTimers
from chalicelib.rest.models import (
    AttemptItem,
    BatchResult,
    Cancelled,
    ClockAdvanced,
    Fired,
    Health,
    Index,
    Moved,
    Nothing,
    ReplayResult,
    SetResult,
    TimerDetails,
    TimerId,
    TimerItem,
    TimerStatus,
    timer_item,
    timer_status,
)
from chalicelib.rest.problems import shown
from chalicelib.rest.reading import ApiRequest
from chalicelib.service.ports import DuePage, Page

BY_KEY = "/by-key/"
"""What stands before the key in a path, behind the path of timers."""

MAX_PAGE_BYTES = 3_000_000
"""A Lambda may respond with 6 MB (AWS limit). Escaped quotes can double the length of a body."""

BodyT = TypeVar("BodyT")


@dataclass(frozen=True, kw_only=True)
class Success(Generic[BodyT]):
    """One kind of response. ``body`` is the type of its JSON body; NoneType means no body.

    A body that is a list has at most ``max_items``. ``creates`` means that a timer was created: the
    OpenAPI document then links the operations on it, and describes the calls to its receiver.
    """

    status: int
    description: str
    body: type[BodyT]
    example: BodyT
    headers: tuple[Header, ...] = ()
    max_items: int | None = None
    creates: bool = False

    def response(self, body: BodyT, headers: Headers | None = None) -> Response:
        """Return the response that carries ``body``."""
        if body is None:
            return Response("", headers or {}, self.status)
        return self.response_of(json.dumps(body), headers or {})

    def response_of(self, text: str, headers: Headers) -> Response:
        """Return the response whose body is ``text``, which is JSON already."""
        return Response(text, {"Content-Type": "application/json", **headers}, self.status)


INDEX = Success(
    status=200,
    description="Every route as `METHOD /path`.",
    body=Index,
    example={"routes": ["GET /", "GET /timers/{timer_id}"]},
)
HEALTHY = Success(
    status=200,
    description="The service reaches its store.",
    body=Health,
    example={"status": "ok"},
)
CREATED = Success(
    status=201,
    description="The timer is set.",
    body=TimerId,
    example={"id": 1},
    headers=(LOCATION, IDEMPOTENT_REPLAYED),
    creates=True,
)
PAGE = Success(
    status=200,
    description="One page of timers.",
    body=list[TimerItem],
    max_items=MAX_LIMIT,
    headers=(LINK,),
    example=[
        {
            "id": 2,
            "url": "https://example.com/hook?k=v",
            "status": "pending",
            "due_at": "2026-11-24T17:00:00.000Z",
            "time_left": 5400,
            "created_at": "2026-11-24T15:30:00.000Z",
            "attempts": 0,
            "next_attempt_at": "2026-11-24T17:00:00.000Z",
            "last_error": None,
            "max_attempts": 3,
            "timeout": 5,
            "on_failure_url": "https://example.com/failed",
        },
        {
            "id": 1,
            "url": "https://example.com/hook",
            "status": "failed",
            "due_at": "2026-11-24T15:20:00.000Z",
            "time_left": 0,
            "created_at": "2026-11-24T15:10:00.000Z",
            "attempts": 1,
            "next_attempt_at": None,
            "last_error": "HTTP 410: the receiver wants no more calls",
            "max_attempts": None,
            "timeout": None,
            "on_failure_url": None,
        },
    ],
)
PURGED = Success(status=200, description="No timer is left.", body=Nothing, example={})
TIME_LEFT = Success(
    status=200,
    description="The timer.",
    body=TimerStatus,
    example={"id": 1, "time_left": 645},
)
KEYED_SET = Success(
    status=201,
    description="The timer is set: the key had none, or one that is settled or in flight.",
    body=TimerStatus,
    example={"id": 1, "time_left": 30},
    headers=(LOCATION,),
    creates=True,
)
KEYED_MOVED = Success(
    status=200,
    description="The timer of the key is moved.",
    body=TimerStatus,
    example={"id": 1, "time_left": 30},
)
CANCELLED = Success(status=204, description="The timer is removed.", body=type(None), example=None)
DETAILS = Success(
    status=200,
    description="The timer.",
    body=TimerDetails,
    example={
        "id": 1,
        "url": "https://example.com/orders",
        "status": "pending",
        "due_at": "2026-11-24T15:20:00.000Z",
        "time_left": 0,
        "created_at": "2026-11-24T15:10:00.000Z",
        "attempts": 2,
        "next_attempt_at": "2026-11-24T15:26:00.000Z",
        "last_error": "HTTP 503",
        "max_attempts": None,
        "timeout": None,
        "on_failure_url": None,
        "method": "PUT",
        "headers": ["Authorization"],
        "body": {"bytes": 11, "content_type": "application/json"},
        "append_id": True,
        "labels": ["order:7"],
        "retry": None,
        "max_lateness": None,
        "repeatable": False,
        "repeats": 0,
        "key": None,
        "no_later_than": None,
        "idempotency_key": None,
        "settled_at": None,
        "next": {
            "at": "2026-11-24T15:26:00.000Z",
            "because": "HTTP 503; attempt 3 of 10; Retry-After 60 s",
        },
    },
)
DOCUMENT = Success(
    status=200,
    description="This document, as it holds for this service.",
    body=dict[str, Any],
    example={"openapi": "3.1.0"},
)
SET_MANY = Success(
    status=200,
    description="The result of each timer, in order. Every timer with an `id` is on disk.",
    body=BatchResult,
    headers=(IDEMPOTENT_REPLAYED,),
    example={
        "results": [
            {"id": 1},
            {
                "error": {
                    "type": "urn:webhook-timers:rate-limited",
                    "title": "Rate limited",
                    "status": 429,
                    "detail": "Too many timers at once; try again in 1 s.",
                }
            },
        ]
    },
)
CANCELLED_MANY = Success(
    status=200,
    description="How many timers matched, and how many were cancelled: 0 while `dry_run` is true.",
    body=Cancelled,
    example={"matching": 2, "cancelled": 2, "next": None},
)
FIRED_MANY = Success(
    status=200,
    description="How many timers matched, and how many are called now: 0 while `dry_run` is true.",
    body=Fired,
    example={"matching": 2, "fired": 2, "next": None},
)
MOVED_MANY = Success(
    status=200,
    description="How many timers matched, and how many were moved: 0 while `dry_run` is true.",
    body=Moved,
    example={"matching": 2, "moved": 2, "next": None},
)
ATTEMPTS = Success(
    status=200,
    description="The latest attempts, those before a replay included.",
    body=list[AttemptItem],
    max_items=MAX_ATTEMPTS_KEPT,
    example=[
        {
            "call": "webhook",
            "at": "2026-11-24T15:20:00.003Z",
            "lateness_ms": 3,
            "duration_ms": 48,
            "status": 410,
            "error": "HTTP 410: the receiver wants no more calls",
        },
        {
            "call": "on_failure",
            "at": "2026-11-24T15:20:00.051Z",
            "lateness_ms": 51,
            "duration_ms": 12,
            "status": 204,
            "error": None,
        },
    ],
)
REPLAYED = Success(
    status=202,
    description="The timer is outstanding again.",
    body=TimerId,
    example={"id": 1},
)
FIRED = Success(
    status=202,
    description="The webhook is called now.",
    body=TimerId,
    example={"id": 1},
)
REPLAY_RESULT = Success(
    status=200,
    description="How many timers matched, and how many were replayed: 0 while `dry_run` is true.",
    body=ReplayResult,
    example={"matching": 2, "replayed": 0, "next": None},
)

ADVANCED = Success(
    status=200,
    description="The clock was moved, and everything due on the way was called.",
    body=ClockAdvanced,
    example={"now": "2026-11-27T15:20:00.000Z", "fired": [1, 3], "failed": [2], "expired": []},
)


def created(request: ApiRequest[Any], timer_id: int, *, replayed: bool = False) -> Response:
    """Return the response to a timer that was set, by an earlier request if ``replayed``."""
    headers: Headers = {LOCATION.name: f"{request.path.rstrip('/')}/{timer_id}"}
    if replayed:
        headers[IDEMPOTENT_REPLAYED.name] = "true"
    return CREATED.response({"id": timer_id}, headers)


def set_many(results: Sequence[SetOnce | TimersError]) -> Response:
    """Return the response to a batch."""
    done = [each for each in results if isinstance(each, SetOnce)]
    replayed = bool(done) and all(each.replayed for each in done)
    return SET_MANY.response(
        {"results": [_set_result(each) for each in results]},
        {IDEMPOTENT_REPLAYED.name: "true"} if replayed else {},
    )


def _set_result(result: SetOnce | TimersError) -> SetResult:
    return {"id": result.timer_id} if isinstance(result, SetOnce) else {"error": shown(result)}


def keyed(request: ApiRequest[Any], done: KeyedTimer, now: float) -> Response:
    """Return the response to the set of a keyed timer at ``now`` (epoch ms)."""
    body = timer_status(done.timer, now)
    if not done.created:
        return KEYED_MOVED.response(body)
    timers = request.path.rpartition(BY_KEY)[0]
    return KEYED_SET.response(body, {LOCATION.name: f"{timers}/{done.timer.id}"})


def page_of(
    request: ApiRequest[ListTimers], page: Page, now: float, max_bytes: int = MAX_PAGE_BYTES
) -> Response:
    """Return one page of timers at ``now`` (epoch ms), with a link to the next (RFC 8288).

    A page that would be longer than ``max_bytes`` ends early.
    """
    items = _items(page.timers, now, max_bytes)
    before = page.timers[len(items) - 1].id if len(items) < len(page.timers) else page.before
    return _page(request, items, None if before is None else cursor.write(before))


def due_page_of(
    request: ApiRequest[ListTimers], page: DuePage, now: float, max_bytes: int = MAX_PAGE_BYTES
) -> Response:
    """Return one page of outstanding timers by due time, as ``page_of`` does."""
    items = _items(page.timers, now, max_bytes)
    after = page.positions[len(items) - 1] if len(items) < len(page.timers) else page.after
    return _page(request, items, None if after is None else cursor.write_due(after))


def _items(timers: Sequence[Timer], now: float, max_bytes: int) -> list[str]:
    """Return the first timers as JSON, up to ``max_bytes``, but at least one."""
    # Encoded one by one, because only then the size of the page is known.
    items: list[str] = []
    size = 0
    for timer in timers:
        items.append(json.dumps(timer_item(timer, now)))
        size += len(items[-1])
        if size >= max_bytes:
            break
    return items


def _page(request: ApiRequest[ListTimers], items: list[str], next_cursor: str | None) -> Response:
    headers: Headers = {}
    if next_cursor is not None:
        query = urlencode(request.input.next_query(next_cursor))
        headers[LINK.name] = f'<{request.path}?{query}>; rel="next"'
    return PAGE.response_of(f"[{', '.join(items)}]", headers)
