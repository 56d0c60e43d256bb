"""Decides where a request is carried out: on the event loop, in a greenlet of it, or in a thread.

A request that reads one row takes a fraction of a millisecond, so it runs on the event loop. A
request that writes one row runs there in a greenlet, which is suspended while the dispatcher
commits. Both save two switches of threads. Every other request gets a thread. Requests about many
timers have few, for which tenants take turns.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from chalicelib.domain.errors import TimersError
from chalicelib.embedded.ipc.suspension import start
from chalicelib.rest.catalogue import Internal
from local.gateway import Gateway, response_to
from local.http_message import HttpRequest, HttpResponse
from local.slow_requests import THREADS as SLOW_THREADS
from local.slow_requests import SlowRequests
from local.work import Work

log = logging.getLogger(__name__)

THREADS = 32
"""Requests that one worker carries out in threads at once. Most wait for the network."""

MAX_BODY_BYTES_ON_LOOP = 16_384
"""A longer body takes a millisecond to check, so its request gets a thread."""

T = TypeVar("T")


class Application:
    """Carries requests out by the gateway. It is used on the event loop only."""

    def __init__(
        self,
        gateway: Gateway,
        loop: asyncio.AbstractEventLoop,
        *,
        work_of: Callable[[str | None, str], Work],
        is_ready: Callable[[], bool],
    ) -> None:
        """``work_of`` takes a route and a method.

        Until the store ``is_ready``, requests wait for it in threads.
        """
        self._gateway = gateway
        self._loop = loop
        self._work_of = work_of
        self._is_ready = is_ready
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
        # A tenant that is alone may have every thread only where there can be no other.
        share = SLOW_THREADS // 2 if gateway.has_tenants else SLOW_THREADS
        self._slow = SlowRequests(loop, share=share)
        self.reads_body = gateway.reads_body
        self.max_body_bytes = gateway.max_body_bytes

    def admit(self, request: HttpRequest, done: Callable[[bool], None]) -> None:
        """Tell ``done`` whether the caller may make this request."""
        if self._gateway.knows_caller(request):
            done(self._gateway.admits(request))
        else:
            self._in_thread(lambda: self._admits(request), done)

    def carry_out(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        """Carry a request out and pass the response to ``done``."""
        work = self._work_of(self._gateway.match(request).route, request.method)
        if work is Work.NOTHING or (work is Work.READ and self._may_run_on_loop(request)):
            done(self._respond(request))
        elif work is Work.WRITE and self._may_run_on_loop(request):
            start(lambda: self._respond_suspended(request, done))
        elif work is Work.MANY:
            self.admit(request, functools.partial(self._take_turn, request, done))
        else:
            self._in_thread(lambda: self._respond(request), done)

    def _take_turn(
        self,
        request: HttpRequest,
        done: Callable[[HttpResponse], None],
        admitted: bool,  # noqa: FBT001 - a callback
    ) -> None:
        if not admitted:
            self._in_thread(lambda: self._respond(request), done)
            return
        try:
            tenant = self._gateway.tenant_of(request)
            self._slow.submit(tenant, lambda: self._respond(request), done)
        except TimersError as error:
            done(response_to(error))

    def _may_run_on_loop(self, request: HttpRequest) -> bool:
        return (
            self._is_ready()
            and len(request.body) <= MAX_BODY_BYTES_ON_LOOP
            # A key that is looked up is read from a file, which may be locked.
            and self._gateway.knows_caller(request)
        )

    def _respond(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._gateway.respond(request)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return response_to(Internal())

    def _respond_suspended(
        self, request: HttpRequest, done: Callable[[HttpResponse], None]
    ) -> None:
        response = self._respond(request)
        # In a turn of its own: this greenlet may have been resumed amid the responses to others,
        # which an error in sending this one must not reach.
        self._loop.call_soon(done, response)

    def _admits(self, request: HttpRequest) -> bool:
        try:
            return self._gateway.admits(request)
        except Exception:
            # The request is carried out without its body, and fails again with a response.
            log.exception("the caller of %s %s is not known", request.method, request.path)
            return False

    def _in_thread(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Carry out ``work``, which raises nothing, and pass its result to ``done``."""
        self._threads.submit(lambda: self._loop.call_soon_threadsafe(done, work()))
