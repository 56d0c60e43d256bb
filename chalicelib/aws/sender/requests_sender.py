"""The sender itself: a thread for each call, and a second try if a kept connection had ended.

The package's docstring describes the threads.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import requests
from urllib3.exceptions import HTTPError

from chalicelib.aws.sender.adapter import CheckedAdapter
from chalicelib.aws.sender.connection import current_call
from chalicelib.aws.sender.failures import ended_early, failure_text, no_open_files
from chalicelib.aws.sender.in_flight_call import InFlightCall
from chalicelib.domain.attempt_log import SUCCESS
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failure import NO_FILES, timed_out, unexpected
from chalicelib.domain.response import MAX_DRAIN_BYTES, MAX_DRAIN_S, parse_retry_after
from chalicelib.domain.response_excerpt import MAX_EXCERPT_BYTES, excerpt_text, has_text
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.domain.webhook import Call, Outcome

log = logging.getLogger(__name__)


class RequestsSender:
    """Sends each call as one request. Many threads may use it at once.

    The deadline (seconds) covers everything from the look-up of the name to the last header of the
    response. The sender follows no redirect, keeps no cookie, and uses no proxy or password of the
    environment. It connects only to addresses that ``guard`` allows.
    """

    def __init__(
        self,
        deadline_s: float,
        guard: Guard,
        *,
        drain_s: float = MAX_DRAIN_S,
        keep_responses: bool = True,
        new_thread: Callable[..., threading.Thread] = threading.Thread,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` (epoch s) is what a Retry-After date is compared with.

        With ``keep_responses``, outcomes have the beginning of a failed response's body.
        """
        self._clock = clock
        self._deadline_s = deadline_s
        self._guard = guard
        self._drain_s = drain_s
        self._keep_responses = keep_responses
        self._new_thread = new_thread
        self._adapter = CheckedAdapter()

    def close(self) -> None:
        """Close every idle connection. Calls in flight continue up to their deadline."""
        self._adapter.close()

    def send(self, call: Call) -> Outcome:
        """Send the call and return its outcome, within the deadline.

        Raises ``Unavailable`` if the system has no thread or no open file for the call. Then the
        call has not begun, and the attempt has not failed.
        """
        in_flight = InFlightCall(call, self._guard, call.deadline_s(self._deadline_s))
        sending = self._new_thread(target=self._send, args=(in_flight,), name="send", daemon=True)
        try:
            sending.start()
        except RuntimeError as error:
            raise Unavailable("The system gives this process no more threads.") from error
        if in_flight.wait_for_outcome():
            # Leave some time for the body, so that the connection can be kept.
            with contextlib.suppress(TimeoutError):
                sending.join(min(self._drain_s, in_flight.remaining_s()))
        # If there is an outcome already, it stays.
        outcome = in_flight.conclude_early(timed_out(in_flight.deadline_s))
        in_flight.cancel()
        return (
            outcome if in_flight.excerpt is None else replace(outcome, response=in_flight.excerpt)
        )

    def _send(self, call: InFlightCall) -> None:
        """Carry out the call on the sending thread."""
        current_call.set(call)
        try:
            self._post(call)
        except Exception as error:
            if not call.response_began and no_open_files(error):
                call.abandon(Unavailable(NO_FILES))
            else:
                text = failure_text(error, call.deadline_s)
                if text is None:
                    log.exception("a call failed in a way that the sender does not know")
                call.conclude_early(text or unexpected(error))
        finally:
            call.detach()

    def _post(self, call: InFlightCall) -> None:
        """Send the request, a second time if the receiver had closed the kept connection."""
        try:
            self._exchange(self._adapter, call)
        except requests.ConnectionError as error:
            if call.response_began or not (call.connection_reused and ended_early(error)):
                raise
        else:
            return
        # The receiver had closed a kept connection while it was idle. That is no failed attempt. A
        # new adapter has no kept connection that could fail in the same way.
        with contextlib.closing(CheckedAdapter()) as fresh:
            self._exchange(fresh, call)

    def _exchange(self, adapter: CheckedAdapter, call: InFlightCall) -> None:
        """Send the request, set the outcome once the headers are complete, and drain the body."""
        response = adapter.post(call)
        head = call.head
        assert head is not None  # the response was made from it
        retry_after = parse_retry_after(head.retry_after, self._clock())
        call.conclude(Outcome(status=head.status, retry_after=retry_after, again=head.again))
        keeps = self._keep_responses and head.status not in SUCCESS and has_text(head)
        with response:
            _drain(response, call if keeps else None)


def _drain(response: requests.Response, keeping: InFlightCall | None) -> None:
    """Read the body, so that the connection can be kept; note its beginning on ``keeping``.

    The outcome is set already. If it is long, slow or broken, only the connection is closed.
    """
    left = MAX_DRAIN_BYTES
    begin = b""
    with contextlib.suppress(HTTPError, OSError):
        while left > 0:
            # ``read1`` returns the bytes that have arrived. ``read`` would wait for ``left`` bytes.
            chunk = response.raw.read1(left)
            if not chunk:
                response.raw.release_conn()
                return
            left -= len(chunk)
            if keeping is not None and len(begin) < MAX_EXCERPT_BYTES:
                begin += chunk[:MAX_EXCERPT_BYTES]
                keeping.excerpt = excerpt_text(begin)
