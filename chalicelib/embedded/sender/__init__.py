"""The sender of the embedded engine: thousands of calls in flight on one event loop.

    HttpSender ─ IdlePool                       a connection that was kept, if it is still silent
        └─ Dialer ─ GuardedResolver             else a new one, to a checked address
              └─ Connection ─ Tls               one call at a time
                     ├─ HeadReader              the status decides (domain.response_head)
                     └─ BodySkipper             the body only decides whether it is kept

Why no client library: its parser refuses some responses whose status line was a success, and its
pool takes bytes that arrive on an idle connection for the next response.
"""

from chalicelib.embedded.sender.http_sender import HttpSender

__all__ = ["HttpSender"]
