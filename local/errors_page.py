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
The server in front refuses what is not valid HTTP, and paths or headers without end, without such a
document: offline with 400, 414 or 431, on AWS with a 4xx `bad-request`.

A 503 to `POST /timers` whose detail says that the request may have been carried out is the one case
in which there may be a timer that was not acknowledged.

For keys that cannot be looked up, `unavailable` is what `make release` sets up; with `chalice
deploy` API Gateway answers its own 500.
"""


def render() -> str:
    """Return the page."""
    rows = [
        f"| {entry.status} | `{entry.code}` | {entry.title} "
        f"| {f'`{entry.header.name}`' if entry.header else ''} | {entry.when} |\n"
        for entry in CATALOGUE.values()
    ]
    return _INTRODUCTION + "".join(rows) + _END
