"""The adapter of ``requests``: sends one prepared request on our connections, and nothing else.

There is no ``requests.Session``: it would add cookies, proxies and passwords of the environment,
and it reads a redirect's body and parses its Location even where redirects are not followed.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.poolmanager import PoolManager

from chalicelib.aws.sender.connection import CheckedHTTPPool, CheckedHTTPSPool
from chalicelib.aws.sender.in_flight_call import InFlightCall

POOL_SIZE = 16
"""Idle connections to one receiver that are kept for the next call."""


class CheckedAdapter(HTTPAdapter):
    """Has urllib3 make checked connections."""

    def __init__(self) -> None:
        super().__init__(pool_maxsize=POOL_SIZE)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of this adapter's own kind."""
        super().init_poolmanager(*arguments, **options)
        # urllib3 2.8: a PoolManager makes each pool from this table of its own.
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": CheckedHTTPPool, "https": CheckedHTTPSPool}

    def post(self, in_flight: InFlightCall) -> requests.Response:
        """Send the call and return the response as soon as its headers are complete.

        Raises what ``requests`` raises, ``ForbiddenTarget`` and ``TimeoutError``. The timeout here
        is only the longest silence: the package's docstring says who enforces the deadline.
        """
        call = in_flight.call
        request = requests.Request(
            call.method, call.url, headers=call.headers, data=call.body or None
        ).prepare()
        if not call.says_length:
            request.headers.pop("Content-Length", None)
        return self.send(request, timeout=in_flight.remaining_s(), stream=True)
