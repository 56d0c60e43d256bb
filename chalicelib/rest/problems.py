"""Errors as responses: problem documents (RFC 9457), as the catalogue describes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from chalice.app import Response

from chalicelib.domain.errors import InvalidRequest, MethodNotAllowed, TimersError
from chalicelib.rest.catalogue import CATALOGUE, Internal, entry_of, title_of
from chalicelib.rest.headers import Headers
from chalicelib.rest.models import FieldFault, InvalidRequestProblem, Problem

PROBLEM_JSON = "application/problem+json"
URN = "urn:webhook-timers:"


def problem(error: TimersError) -> Response:
    """Return the response to ``error``. An error that is not in the catalogue is ``Internal``."""
    entry = entry_of(type(error))
    if entry is None:
        error, entry = Internal(), CATALOGUE[Internal]
    headers: Headers = {"Content-Type": PROBLEM_JSON}
    if entry.header:
        headers[entry.header.name] = entry.header_value(error)
    return Response(json.dumps(document_of(error, entry.status)), headers, entry.status)


def shown(error: TimersError) -> Problem | InvalidRequestProblem:
    """Return the problem document of an error that is a part of a response."""
    entry = entry_of(type(error)) or CATALOGUE[Internal]
    return document_of(error, entry.status)


def document_of(error: TimersError, status: int) -> Problem | InvalidRequestProblem:
    """Return the problem document of ``error``."""
    document: Problem = {
        "type": URN + error.code,
        "title": title_of(error.code),
        "status": status,
        "detail": error.detail,
    }
    if not isinstance(error, InvalidRequest):
        return document
    faults: list[FieldFault] = [
        {"field": fault.field, "message": fault.message} for fault in error.faults
    ]
    return {**document, "errors": faults}


def replace_chalice_errors(event: Any, get_response: Callable[[Any], Response]) -> Response:
    """Replace the errors that Chalice makes before a view runs by ours (a middleware)."""
    response = get_response(event)
    # Chalice's errors have no mark of their own but these two fields, and our bodies are text.
    chalice_made = isinstance(response.body, dict) and response.body.keys() == {"Code", "Message"}
    if not chalice_made:
        return response
    # Unknown paths never get here: both gateways refuse them. So it is a method, or a fault.
    if "Allow" in response.headers:
        return problem(MethodNotAllowed(str(response.headers["Allow"]).split(", ")))
    return problem(Internal())
