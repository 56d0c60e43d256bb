"""The validation of requests: it finds every fault, and describes each in our own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from chalicelib.domain.errors import Fault, InvalidRequest, MalformedBody
from chalicelib.domain.retry import attempts_allowed
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.rest.fields import DELAY_TOO_LONG, SECONDS_IN
from chalicelib.settings import Settings

Examples = dict[str, dict[str, Any]]
"""Bodies by name, each under ``value``, as OpenAPI has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one timer's retry policy in this service, and the addresses it may call."""

    max_attempts: int
    timeout_s: float
    guard: Guard

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits from the settings."""
        return cls(
            max_attempts=attempts_allowed(settings.retry_delays_s),
            timeout_s=settings.send_timeout_s,
            guard=settings.guard,
        )


class Body(BaseModel):
    """A JSON body. An unknown field is a fault."""

    # Strict: pydantic would otherwise read "5" and 5.0 as 5, and true as 1.
    model_config = ConfigDict(extra="forbid", strict=True)

    examples: ClassVar[Examples] = {}

    @classmethod
    def parse(cls, body: bytes, limits: Limits | None = None) -> Self:
        """Read a request body.

        Raises ``MalformedBody`` when it is not JSON and ``InvalidRequest`` with every fault when
        it is JSON but no valid request.
        """
        try:
            return cls.model_validate_json(body, context=limits)
        except ValidationError as error:
            raise cls.refusal(body, error) from error

    @classmethod
    def refusal(cls, body: bytes, error: ValidationError) -> MalformedBody | InvalidRequest:
        """Return the error for a body that pydantic does not accept."""
        details = error.errors(include_url=False, include_input=False)
        if details[0]["type"] == "json_invalid":
            reason = "the body is empty" if not body.strip() else details[0]["ctx"]["error"]
            return MalformedBody(f"The body must be JSON: {reason}")
        return invalid(error)


def invalid(error: ValidationError) -> InvalidRequest:
    """Return the faults that pydantic found in a request, in our words.

    No message repeats a value that was sent: it may be a secret.
    """
    details = error.errors(include_url=False, include_input=False)
    return InvalidRequest([_fault(detail) for detail in details])


def _fault(detail: Any) -> Fault:
    # Bodies are flat, so the first part of the location is the field.
    field = str(detail["loc"][0]) if detail["loc"] else "body"
    bounds = detail.get("ctx", {})
    messages = {
        "extra_forbidden": "unknown field",
        "missing": "is required",
        "greater_than_equal": f"must be {bounds.get('ge')} or more",
        "bool_type": "must be true or false",
        "int_type": "must be a whole number, written without quotes or a fraction",
        "int_parsing_size": DELAY_TOO_LONG if field in SECONDS_IN else "is too large",
        "string_type": "must be a string",
        "string_too_long": f"must have at most {bounds.get('max_length')} characters",
        "model_type": "must be a JSON object",
    }
    if detail["type"] == "value_error":
        return Fault(field, str(detail["ctx"]["error"]))
    return Fault(field, messages.get(detail["type"], detail["msg"]))
