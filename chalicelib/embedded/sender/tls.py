"""TLS on top of a connection's bytes, so that what a receiver sends is counted below it.

The event loop's own TLS hides the bytes of handshakes and session tickets, of which a receiver
could send any number.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

_READ_BYTES = 65_536


class Tls:
    """One TLS session over a pair of memory buffers. ``write`` sends encrypted bytes."""

    def __init__(
        self, context: ssl.SSLContext, server_name: str, write: Callable[[bytes], None]
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name
        )
        self._write = write
        self.established = False

    def start(self) -> None:
        """Send the first message of the handshake. Raises ``ssl.SSLError``."""
        self._shake_hands()

    def receive(self, data: bytes) -> tuple[bytes, bool]:
        """Take encrypted bytes; return the plain ones, and whether the stream has ended.

        Raises ``ssl.SSLError``.
        """
        self._incoming.write(data)
        if not self.established and not self._shake_hands():
            return b"", False
        plain, ended = self._read()
        self._flush()
        return plain, ended

    def send(self, data: bytes) -> None:
        """Encrypt and send ``data``. The handshake must be over."""
        self._session.write(data)
        self._flush()

    def _shake_hands(self) -> bool:
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        else:
            self.established = True
            return True
        finally:
            self._flush()  # an alert too, when the handshake fails

    def _read(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while True:
            try:
                part = self._session.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                return b"".join(parts), False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b"".join(parts), True
            except ssl.SSLError:
                if not parts:
                    raise
                return b"".join(parts), True  # the records before the broken one are valid
            if not part:
                return b"".join(parts), True
            parts.append(part)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._write(data)
