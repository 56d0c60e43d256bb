"""One request and one response, as the server's connections and the gateway exchange them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from chalicelib.domain.errors import TimersError


class Match(NamedTuple):
    """The route of a path and the values of its parameters. The route is None if there is none."""

    route: str | None
    parameters: dict[str, str]


@dataclass(slots=True)
class HttpRequest:
    """One request. ``path`` is decoded; the names of ``headers`` are in lower case.

    ``client`` is the address that it came from. ``fault`` is an error of its body, with which the
    gateway refuses the request once the caller is known. The gateway sets ``match``.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    client: str
    body: bytes = b""
    fault: TimersError | None = None
    match: Match | None = None


@dataclass(slots=True)
class HttpResponse:
    """One response. Its ``headers`` have the length of the body, where it may have one."""

    status: int
    headers: dict[str, str]
    body: bytes
