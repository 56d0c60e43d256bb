"""The OpenAPI document of one service, as it runs, in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chalicelib.domain.retry import attempts_allowed
from chalicelib.rest.requests import SetKeyedTimer, SetTimer
from chalicelib.rest.router import Route
from chalicelib.settings import Settings

_written: dict[tuple[object, ...], str] = {}
"""The documents that were asked for, by what they depend on. Writing one takes 100 ms."""


def service_document(routes: Sequence[Route[Any]], settings: Settings) -> str:
    """Return the document of ``routes`` with the limits and the authorization of ``settings``."""
    limits = attempts_allowed(settings.retry_delays_s), int(settings.send_timeout_s)
    known = (*(route.key for route in routes), *limits, settings.needs_key)
    if known not in _written:
        _written[known] = _write(routes, *limits, needs_key=settings.needs_key)
    return _written[known]


def _write(
    routes: Sequence[Route[Any]], max_attempts: int, timeout_s: int, *, needs_key: bool
) -> str:
    # Imported late: a Lambda that is never asked for the document need not load its writer.
    from chalicelib.rest.openapi import document

    written = document(routes)
    # Relative to the document: the service does not know under which name it is called.
    written["servers"] = [{"url": "."}]
    for model in (SetTimer, SetKeyedTimer):
        fields = written["components"]["schemas"][model.__name__]["properties"]
        fields["max_attempts"]["maximum"] = max_attempts
        fields["timeout"]["maximum"] = timeout_s
    if not needs_key:
        _drop_keys(written)
    return json.dumps(written)


def _drop_keys(written: dict[str, Any]) -> None:
    """Remove what a service that asks for no key does not have."""
    written.pop("security", None)
    written["components"].pop("securitySchemes", None)
    for path in written["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict):
                operation.pop("security", None)
                operation.get("responses", {}).pop("401", None)
