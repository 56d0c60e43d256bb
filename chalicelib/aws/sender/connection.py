"""Connections that lead to checked addresses only, and know the call they carry.

The overrides here lean on urllib3 2.8, which requests 2.34 brings.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from chalicelib.aws.sender.bounded_response import BoundedResponse
from chalicelib.aws.sender.in_flight_call import InFlightCall
from chalicelib.domain.ssrf_guard import MAX_ADDRESSES

current_call: ContextVar[InFlightCall] = ContextVar("current_call")
"""The call of the sending thread.

From ``HTTPAdapter.send`` down to the pool, requests and urllib3 hand on no argument of ours. The
thread sets this variable when it begins, the pool reads it when it gives out a connection, and from
there on the call is passed on openly. Nothing else reads it.
"""


class CheckedHTTPConnection(HTTPConnection):
    """A connection to an address that the call's guard has checked."""

    call: InFlightCall

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> None:
        """Send the request to the target as it was prepared.

        urllib3 would write ``url`` anew, and so has requests: ``%2f%7E`` has become ``%2F~``.
        """
        # http.client connects on the first byte it sends. Connect before, to have a socket to
        # attach: whatever blocks from here on can be cancelled. (With TLS the pool has connected
        # by now. The handshake cannot be cancelled and need not be: CPython's ``do_handshake``
        # counts its timeout over all of its reads.)
        if self.sock is None:
            self.connect()
        self.call.attach(self.sock)
        # CPython 3.10-3.14: http.client calls this with the socket to make the response.
        self.response_class = functools.partial(BoundedResponse, self.call)  # type: ignore[assignment]
        super().request(method, self.call.target, *arguments, **options)

    def _new_conn(self) -> socket.socket:
        """Resolve the name once, check every address, and connect to one of those.

        ``connect`` calls this for the TCP connection, then negotiates TLS on it for the name, not
        for the address. urllib3's own version resolves and connects in one step.
        """
        # urllib3 keeps the name with its final dot in ``_dns_host``; ``host`` comes without.
        host, port = self._dns_host, self.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            failure = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(host, self, failure) from error
        self.call.guard.check(host, [str(address[0]) for *_, address in found])
        try:
            return _connect(found[:MAX_ADDRESSES], self.call)
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class CheckedHTTPSConnection(CheckedHTTPConnection, HTTPSConnection):
    """The same with TLS."""


class CheckedHTTPPool(HTTPConnectionPool):
    """The connections to one receiver. It gives each to one call at a time."""

    ConnectionCls = CheckedHTTPConnection

    def _get_conn(self, timeout: float | None = None) -> CheckedHTTPConnection:
        """Give out a connection, and give it the call of this thread.

        urllib3 gets every connection here. It has closed a kept one that it found to have ended;
        such a connection, and a new one, will connect when it is used.
        """
        connection = cast("CheckedHTTPConnection", super()._get_conn(timeout))
        connection.call = current_call.get()
        connection.call.connection_reused = not connection.is_closed
        return connection


class CheckedHTTPSPool(CheckedHTTPPool, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = CheckedHTTPSConnection


def _connect(found: Sequence[Any], call: InFlightCall) -> socket.socket:
    """Connect to the first of the resolved addresses that accepts, within the call's deadline."""
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for family, kind, proto, _, address in found:
        connection = socket.socket(family, kind, proto)
        try:
            connection.settimeout(call.remaining_s())
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure
