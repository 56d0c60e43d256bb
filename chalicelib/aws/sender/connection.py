"""Connections to checked addresses only. Each knows the call that uses it.

The overrides depend on internals of urllib3 2.8, the version that requests 2.34 installs.
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

Between ``Session.post`` and the pool, requests and urllib3 pass on no argument of ours. So the
thread sets this variable when it begins, and the pool reads it when it returns a connection. From
there the call is an attribute of the connection. Nothing else reads the variable.
"""


class CheckedHTTPConnection(HTTPConnection):
    """A connection to an address that the call's guard has checked."""

    call: InFlightCall

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> None:
        """Send the request to the target that was prepared, instead of ``url``.

        requests and urllib3 have normalised ``url``: ``%2f%7E`` has become ``%2F~``.
        """
        # http.client connects when it sends the first byte. Connect before, to have a socket to
        # attach: every read and write from here on can be cancelled. (With TLS the pool has
        # connected already. The handshake cannot be cancelled and need not be, because CPython's
        # ``do_handshake`` counts its timeout over all of its reads.)
        if self.sock is None:
            self.connect()
        self.call.attach(self.sock)
        # CPython 3.10-3.14: http.client calls this with the socket, to make the response.
        self.response_class = functools.partial(BoundedResponse, self.call)  # type: ignore[assignment]
        super().request(method, self.call.target, *arguments, **options)

    def _new_conn(self) -> socket.socket:
        """Resolve the name once, check every address, and connect to one of them.

        ``connect`` calls this for the TCP connection. Then it negotiates TLS for the name, not for
        the address. urllib3's own version resolves and connects in one step, without a check.
        """
        # urllib3 keeps the final dot of a name in ``_dns_host``, and removes it from ``host``.
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
    """The connections to one receiver. One call at a time uses a connection."""

    ConnectionCls = CheckedHTTPConnection

    def _get_conn(self, timeout: float | None = None) -> CheckedHTTPConnection:
        """Return a connection for the call of this thread. urllib3 gets every connection here."""
        # urllib3 closes a kept connection that has ended before it returns it. Such a connection
        # connects anew when it is used, as a new one does.
        connection = cast("CheckedHTTPConnection", super()._get_conn(timeout))
        connection.call = current_call.get()
        connection.call.connection_reused = not connection.is_closed
        return connection


class CheckedHTTPSPool(CheckedHTTPPool, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = CheckedHTTPSConnection


def _connect(found: Sequence[Any], call: InFlightCall) -> socket.socket:
    """Connect to the first of the resolved addresses that accepts, within the call's deadline."""
    # In case there is no address.
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for family, kind, proto, _, address in found:
        connection = socket.socket(family, kind, proto)
        try:
            connection.settimeout(call.remaining_s())
            # As urllib3 does: without it, a second small packet could wait for the receiver.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure
