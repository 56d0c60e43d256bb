"""The ``requests`` session: our connections, no cookies, no proxies, no redirects."""

from __future__ import annotations

from http.cookiejar import Cookie, CookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.poolmanager import PoolManager

from chalicelib.aws.sender.connection import CheckedHTTPPool, CheckedHTTPSPool
from chalicelib.aws.sender.in_flight_call import InFlightCall

POOL_SIZE = 16
"""The most idle connections to one receiver that are kept for later calls."""


def open_session() -> requests.Session:
    """Return a session that adds nothing to a call and uses nothing of the environment."""
    session = requests.Session()
    session.trust_env = False  # no proxy, password (.netrc) or CA bundle of the environment
    session.headers.clear()  # no ``Accept``, ``Accept-Encoding`` and ``User-Agent`` of requests
    session.cookies.set_policy(_NoCookies())
    session.mount("http://", _CheckedAdapter(pool_maxsize=POOL_SIZE))
    session.mount("https://", _CheckedAdapter(pool_maxsize=POOL_SIZE))
    return session


def post(session: requests.Session, in_flight: InFlightCall) -> requests.Response:
    """Send the empty POST and return the response as soon as its headers are complete.

    Raises what ``requests`` raises, ``ForbiddenTarget`` and ``TimeoutError``.
    """
    return session.post(
        in_flight.call.url,
        headers=in_flight.call.headers,
        # The longest time without a byte. The delivering thread enforces the deadline.
        timeout=in_flight.remaining_s(),
        allow_redirects=False,
        stream=True,  # or ``requests`` would read the whole body first, of any length
    )


class _CheckedAdapter(HTTPAdapter):
    """Makes urllib3 use checked connections."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        # urllib3 2.8: each PoolManager has its own table of pool classes.
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": CheckedHTTPPool, "https": CheckedHTTPSPool}


class _NoCookies(CookiePolicy):
    """Neither keeps nor sends cookies.

    CPython 3.10-3.14: a ``CookieJar`` calls these methods before it keeps or sends a cookie.
    """

    netscape = True
    rfc2965 = hide_cookie2 = False

    def set_ok(self, cookie: Cookie, request: object) -> bool:
        return False

    def return_ok(self, cookie: Cookie, request: object) -> bool:
        return False

    def domain_return_ok(self, domain: str, request: object) -> bool:
        return False

    def path_return_ok(self, path: str, request: object) -> bool:
        return False
