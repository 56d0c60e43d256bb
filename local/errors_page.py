"""docs/errors.md: the catalogue of errors as a table."""

from __future__ import annotations

from chalicelib.rest.catalogue import CATALOGUE

PATH = "docs/errors.md"

_INTRODUCTION = """\
<!-- Written by `make docs` from chalicelib/rest/catalogue.py. Do not edit. -->

# Errors

Every error is `application/problem+json` (RFC 9457): `type` is `urn:webhook-timers:` and the code,
and `title`, `status` and `detail` say more. `invalid-request` has `errors` too, a list of
`{"field", "message"}` with every fault. A refused request changes nothing and never fires.

| status | code | title | header | when |
| --- | --- | --- | --- | --- |
"""

_END = """
The server in front refuses invalid HTTP, and paths or headers that are too long: with `bad-request`
and a 4xx, offline also 501 for an unknown Transfer-Encoding and 505 for another version of HTTP.

There may be a timer that was not acknowledged in one case only: after a 503 to `POST /timers` whose
detail says that the request may have been carried out.

If keys cannot be looked up, the error is `unavailable` offline and after `make release`. After
`chalice deploy`, API Gateway sends a 500 of its own.
"""


def render() -> str:
    """Return the page."""
    rows = [
        f"| {entry.status} | `{entry.code}` | {entry.title} "
        f"| {f'`{entry.header.name}`' if entry.header else ''} | {entry.when} |\n"
        for entry in CATALOGUE.values()
    ]
    return _INTRODUCTION + "".join(rows) + _END
