"""The port of the offline server: it must be free before the server starts."""

from __future__ import annotations

import socket
import time

from chalicelib.domain.errors import StartupError
from local.address import family_of

WAIT_S = 3.0
"""How long to wait for the port. The children of a killed server keep it for up to a second."""

_POLL_S = 0.05


class PortTaken(StartupError):
    """Another program listens on the port of this server."""

    code = "port-taken"


def wait_for_port(host: str, port: int) -> None:
    """Return once no process listens on ``port``. Raises ``PortTaken`` after ``WAIT_S``."""
    # The workers share the port (SO_REUSEPORT), and would share it with a second server too.
    # Only a socket that does not share the port shows that it is taken.
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with socket.create_server((host, port), family=family_of(host)):
                return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise PortTaken(
                    f"cannot listen on {host}:{port} ({error.strerror}); "
                    f"try: make run PORT={port + 1}"
                ) from error
        time.sleep(_POLL_S)
