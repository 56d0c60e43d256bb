"""Where requests are carried out: on the event loop, in a greenlet of it, or in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from chalicelib.domain.errors import Unauthorized
from chalicelib.embedded.ipc.suspension import can_suspend
from local.application import MAX_BODY_BYTES_ON_LOOP, Application
from local.gateway import response_to
from local.http_message import HttpRequest, HttpResponse, Match
from local.work import Work, embedded_work, waiting_work
from tests.support.loop import on_a_loop, until


class FakeGateway:
    """Notes where each request is carried out. The path of a request is its work."""

    def __init__(self, *, known: bool = True, admitted: bool = True) -> None:
        self.known = known
        self.admitted = admitted
        self.has_tenants = True
        self.places: list[str] = []
        self.error: Exception | None = None

    def match(self, request: HttpRequest) -> Match:
        return Match(request.path, {})

    def reads_body(self, _request: HttpRequest) -> bool:
        return True

    def max_body_bytes(self, _request: HttpRequest) -> int:
        return 1

    def knows_caller(self, _request: HttpRequest) -> bool:
        return self.known

    def admits(self, _request: HttpRequest) -> bool:
        if self.error:
            raise self.error
        self.places.append(f"look-up in {place()}")
        self.known = self.admitted
        return self.admitted

    def tenant_of(self, _request: HttpRequest) -> str:
        return "tenant"

    def respond(self, _request: HttpRequest) -> HttpResponse:
        self.places.append(place())
        if self.error:
            raise self.error
        return HttpResponse(200, {}, b"") if self.admitted else response_to(Unauthorized())


def place() -> str:
    name = threading.current_thread().name
    if threading.current_thread() is not threading.main_thread():
        return name.rpartition("_")[0]
    return "greenlet" if can_suspend() else "loop"


async def statuses(
    gateway: FakeGateway, work: Work, *, is_ready: bool = True, body: bytes = b""
) -> list[int]:
    """Carry a request out; return the status of each response: of one, if all is well."""
    application = Application(
        gateway,  # type: ignore[arg-type]
        asyncio.get_running_loop(),
        work_of=lambda _route, _method: work,
        is_ready=lambda: is_ready,
    )
    responses: list[HttpResponse] = []
    request = HttpRequest("POST", "/", "", {}, "", body)
    application.carry_out(request, responses.append)
    await until(lambda: responses)
    return [response.status for response in responses]


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (Work.NOTHING, "loop"),
        (Work.READ, "loop"),
        (Work.WRITE, "greenlet"),
        (Work.OTHER, "request"),
        (Work.MANY, "slow"),
    ],
)
@on_a_loop
async def test_work_has_its_place(work: Work, expected: str) -> None:
    gateway = FakeGateway()
    assert await statuses(gateway, work) == [200]
    assert gateway.places[-1] == expected


@pytest.mark.parametrize(
    "options", [{"is_ready": False}, {"body": b"x" * (MAX_BODY_BYTES_ON_LOOP + 1)}]
)
@pytest.mark.parametrize("work", [Work.READ, Work.WRITE])
@on_a_loop
async def test_what_may_take_long_is_kept_off_the_event_loop(
    work: Work, options: dict[str, Any]
) -> None:
    gateway = FakeGateway()
    assert await statuses(gateway, work, **options) == [200]
    assert gateway.places == ["request"]


@pytest.mark.parametrize("work", [Work.READ, Work.WRITE])
@on_a_loop
async def test_a_key_is_looked_up_in_a_thread(work: Work) -> None:
    gateway = FakeGateway(known=False)
    assert await statuses(gateway, work) == [200]
    assert gateway.places == ["request"]


@on_a_loop
async def test_slow_work_takes_its_turn_only_once_its_caller_is_known() -> None:
    gateway = FakeGateway(known=False)
    assert await statuses(gateway, Work.MANY) == [200]
    assert gateway.places == ["look-up in request", "slow"]


@on_a_loop
async def test_a_caller_without_a_key_takes_no_turn() -> None:
    gateway = FakeGateway(known=False, admitted=False)
    assert await statuses(gateway, Work.MANY) == [401]
    assert gateway.places == ["look-up in request", "request"]


@pytest.mark.parametrize("work", list(Work))
@on_a_loop
async def test_an_error_of_ours_is_500_wherever_it_is_raised(work: Work) -> None:
    gateway = FakeGateway(known=work is not Work.MANY)
    gateway.error = RuntimeError("a fault")
    assert await statuses(gateway, work) == [500]


@pytest.mark.parametrize(
    ("method", "route", "work"),
    [
        ("GET", None, Work.NOTHING),
        ("GET", "/", Work.NOTHING),
        ("GET", "/timers/{timer_id}", Work.READ),
        ("HEAD", "/timers/by-key/{key}", Work.READ),
        ("POST", "/timers", Work.WRITE),
        ("PATCH", "/timers/{timer_id}", Work.WRITE),
        ("GET", "/timers", Work.MANY),
        ("DELETE", "/timers", Work.MANY),
        ("POST", "/timers/batch", Work.MANY),
        ("POST", "/timers/replay", Work.MANY),
        ("GET", "/health", Work.OTHER),
    ],
)
def test_each_route_has_its_work(method: str, route: str | None, work: Work) -> None:
    assert embedded_work(route, method) is work
    waits = work in (Work.READ, Work.WRITE)
    assert waiting_work(route, method) is (Work.OTHER if waits else work)
