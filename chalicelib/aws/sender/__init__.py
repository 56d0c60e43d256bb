"""The sender of the AWS engine: sends each call with ``requests``, on a thread of its own.

    delivering thread                          sending thread, one for each call
    (RequestsSender.send)                      (RequestsSender._send)

    starts it ───────────────────────────────▶ looks up the name, checks every address
    waits for the outcome,                     connects, negotiates TLS, sends the request
    until the deadline at most                 reads the headers of the response
                        ◀── the outcome ────── sets the outcome
    waits for the thread to end,               drains the body, so that the connection
    for MAX_DRAIN_S at most                    can be kept, and ends
    cancels the call ────── if it still ─────▶ its blocked read or write fails at once,
    returns the outcome        runs            and the thread ends

Why two threads: ``requests`` counts a timeout from one read to the next, so a receiver that sends
one byte a second is never too late. Our deadline is wall clock, and only another thread can hold
the sending thread to it.

Why a thread for each call and no pool: nothing can interrupt a look-up that the system's resolver
does not answer. A few of those would occupy every thread of a pool. Such a thread is left behind,
as a daemon, and ends when the look-up does.

Only the delivering thread cancels: at the deadline, or when the body takes too long. It shuts down
a duplicate of the socket's file descriptor, never the connection itself. The sending thread may be
using that: ``SSLSocket.shutdown`` drops the encryption first, and the rest of a request could go
out in clear. The duplicate leads to the same TCP connection. It also stays ours if the sending
thread closes the connection and the system gives its number to another one.
"""

from __future__ import annotations

from chalicelib.aws.sender.requests_sender import RequestsSender

__all__ = ["RequestsSender"]
