"""The sender of the AWS engine: sends each call with ``requests``, on a thread of its own.

    delivering thread                          sending thread, one for each call
    (RequestsSender.send)                      (RequestsSender._send)

    starts a thread ─────────────────────────▶ looks up the name, checks every address
    waits for the outcome,                     connects, negotiates TLS, sends the request
    until the deadline at most                 reads the headers of the response
                        ◀── the outcome ────── sets the outcome
    waits for the thread to end,               drains the body, so that the connection
    for MAX_DRAIN_S at most                    can be kept, and ends
    cancels the call ────── if it still ─────▶ its blocked read or write fails at once,
    returns the outcome        runs            and the thread ends

Why two threads: ``requests`` counts a timeout from one read to the next, so a receiver that sends
one byte a second never exceeds it. Our deadline covers the whole call, and only another thread can
enforce it.

Why a thread for each call and no pool: a look-up cannot be interrupted, and it may hang in the
system's resolver. A few hanging look-ups would occupy every thread of a pool. Instead, such a
thread stays behind as a daemon, and ends when its look-up ends.

Only the delivering thread cancels: at the deadline, or when the body takes too long. It shuts down
a duplicate of the socket's file descriptor, never the connection itself, for two reasons:

- The sending thread may be using the connection. ``SSLSocket.shutdown`` drops the encryption first,
  and the rest of a request could go out in clear. The duplicate is a plain socket of the same TCP
  connection.
- The sending thread may close the connection, and the system may give its file descriptor to
  another one. The duplicate has a file descriptor of its own.
"""

from __future__ import annotations

from chalicelib.aws.sender.requests_sender import RequestsSender

__all__ = ["RequestsSender"]
